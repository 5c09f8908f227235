//! Every weight in a table that a click on a head sorts.

use std::fmt::Write as _;

use super::super::Made;
use super::{bits, escaped};
use s2dit_emit::plan::Storage;

/// Sorts a table by a column: numbers by `data-v`, text by itself. A second click turns the order around.
pub(super) const SORT: &str = "<script>
for (const head of document.querySelectorAll('table.sortable th')) head.onclick = () => {
  const table = head.closest('table'), column = head.cellIndex, down = head.dataset.down !== '1';
  const key = row => { const cell = row.cells[column]; return cell.dataset.v === undefined ? cell.textContent : +cell.dataset.v; };
  const rows = [...table.rows].slice(1).sort((a, b) => { const [x, y] = [key(a), key(b)]; return x < y ? -1 : x > y ? 1 : 0; });
  if (!down) rows.reverse();
  for (const other of table.rows[0].cells) delete other.dataset.down;
  if (down) head.dataset.down = '1';
  table.tBodies[0].append(...rows);
};
</script>
";

/// Every weight, those that cost the output most alone, or that err most themselves, first.
pub(super) fn weights(made: &Made) -> String {
    let mut rows: Vec<_> = made.plan.weight.iter().zip(&made.alone_db).collect();
    rows.sort_by(|(a, a_db), (b, b_db)| {
        let key = |db: &Option<f64>| db.unwrap_or(f64::INFINITY);
        key(a_db).total_cmp(&key(b_db)).then(b.error.total_cmp(&a.error)).then(a.name.cmp(&b.name))
    });
    let heads = ["weight", "bits", "scheme", "bytes", "relative error", "dB alone in 4 bits", "why"];
    let heads: String = heads.iter().map(|head| format!("<th>{head}</th>")).collect();
    let mut table = format!("<table class=\"sortable\"><tbody><tr>{heads}</tr>\n");
    for (w, alone) in rows {
        let error = if w.scheme == Storage::Whole { "–".into() } else { format!("{:.2e}", w.error) };
        // What was not measured sorts after everything that was.
        let (shown, db) = alone.map_or(("–".into(), 1e9), |db| (format!("{db:.1}"), db));
        let _ = writeln!(
            table,
            "<tr><td>{}</td><td data-v=\"{}\">{}</td><td>{}</td><td data-v=\"{}\">{}</td><td data-v=\"{:e}\">{error}</td>\
             <td data-v=\"{db:e}\">{shown}</td><td>{}</td></tr>",
            escaped(&w.name),
            bits(w),
            bits(w),
            w.scheme,
            w.bytes,
            w.bytes,
            w.error,
            escaped(&w.why)
        );
    }
    table + "</tbody></table>\n"
}
