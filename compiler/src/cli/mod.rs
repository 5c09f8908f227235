//! The command line: one module a command.

mod call;
mod child;
mod compile;
mod decode;
mod demo;
mod estimate;
mod explain;
mod generate;
mod init;
mod inspect;
mod lint;
mod man;
mod pass_list;
mod passes;
mod places;
pub mod progress;
mod quantize;
mod ranges;
mod run;
mod search;
mod stream;
mod style;
mod terminal;
mod usage;
mod verify;
mod weights;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

pub use call::{Answer, Failure, Listener, Silent, call, runs_models};
use clap::{CommandFactory, FromArgMatches as _, Parser, Subcommand};
use s2dit_backends::output::{Destination, set_sync};
use terminal::{print_error, print_failure, print_json, print_line, print_note, print_rows, print_script};

use crate::errors;

/// Compiles video diffusion transformers (S2DiT, Wan, LTX-Video, SANA-Video, Open-Sora and others) to Core ML, ONNX and Core AI, and proves the result on this machine.
#[derive(Parser)]
#[command(
    name = NAME,
    version,
    after_help = "Start with `s2ditc demo`. Exit codes: 0 fine, 1 the work failed, 2 usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,

    /// No progress and no notes, only results and errors
    #[arg(short, long, global = true)]
    quiet: bool,

    /// Threads to use (default: all cores); what is compiled does not depend on it, and what a model computes differs by rounding at most
    #[arg(long, global = true, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,

    /// Replace outputs that s2ditc did not make, too; a folder with other things in it is never replaced
    #[arg(long, global = true)]
    force: bool,

    /// Do not wait until outputs are on the disk: faster, and lost if the machine stops now
    #[arg(long, global = true)]
    no_sync: bool,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Args),
    Inspect(inspect::Args),
    Compile(compile::Args),
    Quantize(Box<quantize::Args>),
    Verify(verify::Args),
    Run(run::Args),
    Stream(Box<stream::Args>),
    Decode(decode::Args),
    Generate(Box<generate::Args>),
    Ranges(ranges::Args),
    Lint(lint::Args),
    Estimate(Box<estimate::Args>),
    Search(Box<search::Args>),
    Passes(pass_list::Args),
    Explain(explain::Args),
    Demo(demo::Args),
    /// Print a completion script for a shell
    #[command(after_help = "Example: s2ditc completions bash > ~/.local/share/bash-completion/completions/s2ditc")]
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page of s2ditc, or of one of its commands
    #[command(after_help = "Example: s2ditc man compile > ~/.local/share/man/man1/s2ditc-compile.1")]
    Man {
        /// Command whose page is printed [default: the page of s2ditc, which lists the commands]
        #[arg(value_name = "COMMAND")]
        page: Option<String>,
    },
}

impl Command {
    /// Of a command that runs models, the path that it is about.
    fn runs_models(&self) -> Option<&Path> {
        match self {
            Command::Verify(args) => Some(&args.artifact),
            Command::Run(args) => args.model.as_deref(),
            Command::Stream(args) => Some(&args.artifact),
            Command::Decode(args) => Some(&args.artifact),
            Command::Generate(args) => Some(&args.pipeline),
            Command::Ranges(args) => Some(&args.artifact),
            Command::Quantize(args) => Some(&args.checkpoint),
            Command::Demo(args) => Some(&args.output),
            Command::Init(_)
            | Command::Inspect(_)
            | Command::Compile(_)
            | Command::Lint(_)
            | Command::Estimate(_)
            | Command::Search(_)
            | Command::Passes(_)
            | Command::Explain(_)
            | Command::Completions { .. }
            | Command::Man { .. } => None,
        }
    }
}

/// Settings that every command has.
#[derive(Clone, Copy)]
struct Context {
    quiet: bool,
    threads: usize,
    /// Replace what others made.
    force: bool,
}

impl Context {
    /// Where an output goes.
    fn to(self, path: &Path) -> Destination<'_> {
        Destination { path, force: self.force }
    }
}

/// The command line as clap knows it: commands, flags and their help. The tests write the tables of `docs/commands.md` from it.
#[must_use]
pub fn command() -> clap::Command {
    // A number below 0 is a value, which the flag refuses in its own words; the parser would take it for another flag.
    let takes_numbers = |flag: clap::Arg| match flag.get_action().takes_values() && !flag.is_positional() {
        true => flag.allow_negative_numbers(true),
        false => flag,
    };
    Cli::command().mut_subcommands(|command| command.mut_args(takes_numbers))
}

/// The command of a line that begins with the program's name.
fn parsed(typed: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Cli, clap::Error> {
    let mut command = command();
    let matches = command.try_get_matches_from_mut(typed);
    matches.and_then(|matches| Cli::from_arg_matches(&matches)).map_err(|said| said.format(&mut command))
}

/// The process that a command line is run in.
#[derive(Clone, Debug)]
pub struct Host {
    /// What is typed after the program's name.
    pub args: Vec<OsString>,
    /// The program, and the arguments before [`args`](Host::args), that start this command line once more. Commands that run models do so in
    /// a child process; with an empty list they run them in this one.
    pub again: Vec<OsString>,
}

impl Host {
    /// The executable of this process, run with the arguments that it was given.
    #[must_use]
    pub fn executable() -> Host {
        let again = std::env::current_exe().map(OsString::from).into_iter().collect();
        Host { args: std::env::args_os().skip(1).collect(), again }
    }
}

/// Runs the command line of a process, and returns what the process is to exit with.
#[must_use]
pub fn main(host: &Host) -> ExitCode {
    let name = OsString::from(NAME);
    let cli = match parsed([&name].into_iter().chain(&host.args)) {
        Ok(cli) => cli,
        Err(said) => return say(&said),
    };
    if let Some(subject) = cli.command.runs_models()
        && let Some(code) = child::run(subject, host)
    {
        return code;
    }
    // Fails only if done twice, and then what was done first still holds.
    let _ = rayon::ThreadPoolBuilder::new().num_threads(cli.threads()).build_global();
    #[cfg(unix)]
    let _ = s2dit_backends::output::on_signals();
    perform(&cli).unwrap_or_else(|error| {
        print_failure(&error);
        if error.is::<usage::Usage>() { ExitCode::from(USAGE) } else { ExitCode::FAILURE }
    })
}

/// The name of the program.
const NAME: &str = "s2ditc";

impl Cli {
    /// Threads to use.
    fn threads(&self) -> usize {
        self.threads.map_or_else(|| std::thread::available_parallelism().map_or(1, usize::from), usize::from)
    }
}

/// Runs a command in this thread.
fn perform(cli: &Cli) -> anyhow::Result<ExitCode> {
    set_sync(!cli.no_sync);
    let context = Context { quiet: cli.quiet, threads: cli.threads(), force: cli.force };
    match &cli.command {
        Command::Init(args) => init::run(args, context),
        Command::Inspect(args) => args.weights.about(inspect::run(args, context)),
        Command::Compile(args) => args.weights.about(compile::run(args, context)),
        Command::Quantize(args) => args.weights.about(quantize::run(args, context)),
        Command::Verify(args) => args.weights.about(verify::run(args, context)),
        Command::Run(args) => run::run(args, context),
        Command::Stream(args) => stream::run(args, context),
        Command::Decode(args) => decode::run(args, context),
        Command::Generate(args) => generate::run(args, context),
        Command::Lint(args) => lint::run(args, context),
        Command::Estimate(args) => estimate::run(args, context),
        Command::Search(args) => search::run(args, context),
        Command::Passes(args) => pass_list::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Ranges(args) => ranges::run(args, context),
        Command::Demo(args) => demo::run(args, context),
        Command::Completions { shell } => {
            // Into memory first: the generator panics if the reader goes away.
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut command(), NAME, &mut script);
            print_script(String::from_utf8_lossy(&script).trim_end()).map(|()| ExitCode::SUCCESS)
        }
        Command::Man { page } => print_script(man::page(page.as_deref())?.trim_end()).map(|()| ExitCode::SUCCESS),
    }
}

/// The exit code for a wrong command line.
const USAGE: u8 = 2;

/// The class of command lines that are not understood.
const NOT_UNDERSTOOD: &str = "E0001";

/// Prints help, the version or what is wrong with the command line. Help that could not be written is a failure.
fn say(said: &clap::Error) -> ExitCode {
    use std::io::Write;
    let printed = said.print().and_then(|()| std::io::stdout().flush());
    if said.use_stderr() {
        let said = said.to_string();
        let class = said.lines().find_map(errors::of).or_else(|| errors::find(NOT_UNDERSTOOD));
        if let Some(class) = class {
            print_rows(&format!("  help: s2ditc explain {}", class.id));
        }
        return ExitCode::from(USAGE);
    }
    match printed {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            print_error(&format!("cannot write to standard output: {e}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
