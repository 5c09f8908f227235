use super::*;

/// Who made what is there, and whether it is replaced by force.
#[derive(Clone, Copy, PartialEq)]
enum Who {
    Ours,
    Foreign,
    Forced,
}
use Who::{Forced, Foreign, Ours};

fn file(path: &Path, who: Who) -> Result<Staged, OutputError> {
    Staged::file(Destination { path, force: who == Forced }, &|_| who == Ours)
}

/// A package with two files.
fn folder(path: &Path, who: Who) -> Result<Staged, OutputError> {
    let part = |p: &str| ["Manifest.json", "Data/w.bin"].contains(&p);
    let contents = Contents { kind: "a package", marker: "Manifest.json", part: &part, ours: &|_| who == Ours };
    Staged::folder(Destination { path, force: who == Forced }, &contents)
}

fn package(place: &Path) {
    fs::create_dir_all(place.join("Data")).unwrap();
    fs::write(place.join("Manifest.json"), b"old").unwrap();
    fs::write(place.join("Data/w.bin"), b"old").unwrap();
}

fn entries(dir: &Path) -> usize {
    fs::read_dir(dir).unwrap().count()
}

#[test]
fn a_file_appears_on_commit_only() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("x.onnx");
    let staged = file(&place, Foreign).unwrap();
    fs::write(staged.path(), b"new").unwrap();
    assert!(!place.exists());
    staged.commit().unwrap();
    assert_eq!(fs::read(&place).unwrap(), b"new");
    assert_eq!(entries(dir.path()), 1);
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_devices_refused() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("folder")).unwrap();
    fs::write(at("folder/file"), b"old").unwrap();
    package(&at("folder/package"));
    for (link, target) in [("file", "folder/file"), ("two", "file"), ("dangling", "folder/new")] {
        symlink(target, at(link)).unwrap();
        let staged = file(&at(link), Ours).unwrap();
        fs::write(staged.path(), link).unwrap();
        staged.commit().unwrap();
        assert!(at(link).symlink_metadata().unwrap().is_symlink(), "{link}");
        assert_eq!(fs::read_to_string(at(link)).unwrap(), link);
    }
    assert_eq!(fs::read(at("folder/new")).unwrap(), b"dangling");
    for (link, target) in [("package", "folder/package"), ("none", "folder/none")] {
        symlink(target, at(link)).unwrap();
        // With and without a separator at the end.
        for link in [at(link), at(&format!("{link}/"))] {
            let staged = folder(&link, Ours).unwrap();
            fs::write(staged.path().join("Manifest.json"), b"new").unwrap();
            staged.commit().unwrap();
        }
        assert!(at(link).symlink_metadata().unwrap().is_symlink(), "{link}");
        assert_eq!(fs::read(at(target).join("Manifest.json")).unwrap(), b"new");
    }
    symlink("round", at("round")).unwrap();
    assert!(file(&at("round"), Ours).unwrap_err().to_string().contains("circle"));
    assert!(matches!(file(Path::new("/dev/null"), Forced), Err(OutputError::Occupied { .. })));
}

#[test]
fn a_dropped_output_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let staged = folder(&dir.path().join("x.mlpackage"), Ours).unwrap();
    fs::write(staged.path().join("half"), b"...").unwrap();
    drop(staged);
    assert_eq!(entries(dir.path()), 0);
}

#[cfg(unix)]
#[test]
fn leftovers_of_the_dead_are_removed_and_those_of_the_living_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    let (dead, alive) = (child.id(), std::os::unix::process::parent_id());
    let leftover = |name: &str, pid| dir.path().join(format!(".{name}.partial-{pid}"));
    for (name, pid) in [("x.onnx", dead), ("x.onnx", alive), ("y.onnx", dead)] {
        fs::write(leftover(name, pid), b"half").unwrap();
    }
    let package = leftover("x.mlpackage", dead);
    fs::create_dir_all(package.join("Data")).unwrap();
    let held = fs::File::open(&package).unwrap();
    held.lock().unwrap();

    file(&dir.path().join("x.onnx"), Ours).unwrap().commit().unwrap();
    assert!(!leftover("x.onnx", dead).exists());
    assert!(leftover("x.onnx", alive).exists() && leftover("y.onnx", dead).exists());
    let place = dir.path().join("x.mlpackage");
    drop(folder(&place, Ours).unwrap());
    assert!(package.exists(), "locked by another process");
    drop(held);
    drop(folder(&place, Ours).unwrap());
    assert!(!package.exists());
}

#[test]
fn several_outputs_are_committed_together() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    let staged = vec![file(&a, Ours).unwrap(), file(&b, Ours).unwrap()];
    // A folder that came meanwhile is in the way of the second.
    fs::create_dir(&b).unwrap();
    fs::write(b.join("x"), b"").unwrap();
    assert!(Staged::commit_all(staged).unwrap_err().to_string().contains("b`"));
    assert!(a.is_file() && b.join("x").exists());
    assert_eq!(entries(dir.path()), 2);
}

#[test]
fn what_others_made_is_replaced_by_force_only() {
    let dir = tempfile::tempdir().unwrap();
    let (model, dirs, empty) = (dir.path().join("x.onnx"), dir.path().join("x.mlpackage"), dir.path().join("empty"));
    fs::write(&model, b"old").unwrap();
    package(&dirs);
    fs::write(&empty, b"").unwrap();
    let error = file(&model, Foreign).unwrap_err().to_string();
    assert!(error.contains("x.onnx") && error.contains("--force"), "{error}");
    let error = folder(&dirs, Foreign).unwrap_err().to_string();
    assert!(error.contains("x.mlpackage") && error.contains("--force"), "{error}");
    assert_eq!((fs::read(&model).unwrap(), entries(dir.path())), (b"old".to_vec(), 3));
    for who in [Ours, Forced] {
        file(&model, who).unwrap();
        folder(&dirs, who).unwrap();
    }
    file(&empty, Foreign).unwrap();
}

#[test]
fn a_package_is_replaced_and_other_folders_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("x.mlpackage");
    package(&place);
    fs::write(place.join(".DS_Store"), b"where its icon is").unwrap();
    let staged = folder(&place, Ours).unwrap();
    fs::write(staged.path().join("Manifest.json"), b"new").unwrap();
    staged.commit().unwrap();
    assert_eq!(fs::read(place.join("Manifest.json")).unwrap(), b"new");
    assert_eq!(entries(dir.path()), 1);

    // A stranger's file is never deleted, however deep it lies, and whatever is forced.
    fs::create_dir_all(place.join("Data/deep")).unwrap();
    fs::write(place.join("Data/deep/thesis"), b"precious").unwrap();
    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis"), b"precious").unwrap();
    for who in [Ours, Forced] {
        for (place, foreign) in [(&place, "x.mlpackage/Data/deep/thesis"), (&home, "home/thesis")] {
            let error = folder(place, who).unwrap_err();
            assert!(matches!(error, OutputError::Occupied { .. }) && error.to_string().contains(foreign), "{error}");
        }
        assert!(matches!(file(&home, who), Err(OutputError::Occupied { .. })));
    }
    fs::rename(home.join("thesis"), home.join("Manifest.json.bak")).unwrap();
    assert!(folder(&home, Forced).is_err());
    assert!(matches!(file(&dir.path().join("no/such"), Ours), Err(OutputError::NoParent { .. })));
}

#[test]
fn the_longest_names_that_a_disk_takes_are_written() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["n".repeat(255), "é".repeat(127)] {
        let place = dir.path().join(&name);
        let staged = file(&place, Ours).unwrap();
        assert!(staged.path().file_name().unwrap().len() < 255);
        staged.commit().unwrap();
        assert!(place.is_file());
    }
    // Names that are cut alike are told apart.
    let prefix = |end: &str| leftovers::prefix(format!("{}{end}", "n".repeat(240)).as_ref());
    assert_ne!(prefix("a"), prefix("b"));
}

#[test]
fn errors_name_the_place_that_was_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let place = dir.path().join("x.mlpackage");
    let staged = folder(&place, Ours).unwrap();
    let inner = format!("cannot write `{}`: no space", staged.path().join("Data/w.bin").display());
    let said = staged.unwritten(&anyhow::anyhow!(inner).context(format!("cannot write `{}`", place.display())));
    assert_eq!(said.to_string(), format!("cannot write `{}`: no space", place.join("Data/w.bin").display()));
    let said = staged.unwritten(&anyhow::anyhow!("no space")).to_string();
    assert_eq!(said, format!("cannot write `{}`: no space", place.display()));
}
