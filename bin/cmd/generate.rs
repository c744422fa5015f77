//! `sipbox generate man|completions DIR`: the files of `man/` and `completions/`, from the flag definitions and the
//! prose in `man/prose/`.

use super::{COMMANDS, Entry};
use crate::environment;
use crate::exit::{Code, Failure};
use clap::{ArgMatches, Args as _, Command, FromArgMatches, Subcommand};
use clap_complete::Shell;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

pub const ENTRY: Entry = Entry {
    name: "generate",
    command: || Args::augment_args(Command::new("generate")).about("Write man pages or shell completions"),
    run,
    prose: include_str!("../../man/prose/generate.roff"),
};

#[derive(clap::Args)]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// One man page a command: DIR/sipbox-COMMAND.1
    Man {
        /// An existing directory
        dir: PathBuf,
    },
    /// For bash, zsh and fish, under sipbox and each sipbox-COMMAND
    Completions {
        /// An existing directory
        dir: PathBuf,
    },
}

fn run(matches: &ArgMatches) -> Result<(), Failure> {
    let args = Args::from_arg_matches(matches).map_err(|e| Failure::new(Code::Usage, e.to_string()))?;
    match args.what {
        What::Man { dir } => man(&dir),
        What::Completions { dir } => completions(&dir),
    }
}

fn write(dir: &Path, name: &str, content: &[u8]) -> Result<(), Failure> {
    let path = dir.join(name);
    fs::write(&path, content).map_err(|error| {
        let code = if error.kind() == std::io::ErrorKind::NotFound { Code::NoInput } else { Code::Io };
        Failure::new(code, format!("{}: {error}; give a directory that is there", path.display()))
    })
}

fn man(dir: &Path) -> Result<(), Failure> {
    write(dir, "sipbox.1", &page(crate::toplevel(), "", include_str!("../../man/prose/sipbox.roff"))?)?;
    for entry in COMMANDS {
        let file = format!("sipbox-{}", entry.name);
        let command = (entry.command)().name(lasting(&file)).bin_name(file.clone());
        write(dir, &format!("{file}.1"), &page(command, entry.name, entry.prose)?)?;
    }
    Ok(())
}

/// clap wants names that last as long as the process, which ends when the files are written.
fn lasting(name: &str) -> &'static str {
    name.to_owned().leak()
}

/// Name, synopsis, description and options from the definitions, then the prose, then the variables.
fn page(command: Command, name: &str, prose: &str) -> Result<Vec<u8>, Failure> {
    // No date: the same definitions give the same bytes, so that a stale page can be told.
    let version = env!("CARGO_PKG_VERSION");
    let mut command = command.version(version).disable_help_subcommand(true);
    command.build();
    let title = command.get_name().to_owned();
    let flags = flags(&command);
    let subcommands: Vec<Command> = command.get_subcommands().cloned().collect();
    let man = clap_mangen::Man::new(command).title(title).source(format!("sipbox {version}")).date("");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    if !prose.contains(".SH DESCRIPTION") {
        man.render_description_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    if !name.is_empty() && !subcommands.is_empty() {
        page.extend_from_slice(b".SH SUBCOMMANDS\n");
        for subcommand in &subcommands {
            subcommand_section(&mut page, name, subcommand)?;
        }
    }
    page.extend_from_slice(prose.as_bytes());
    if !name.is_empty() && !flags.is_empty() {
        page.extend_from_slice(variables(name, &flags).as_bytes());
    }
    Ok(page)
}

/// A heading with the usage, what it does, and its options; and the same for what is below it.
fn subcommand_section(page: &mut Vec<u8>, path: &str, subcommand: &Command) -> Result<(), Failure> {
    let path = format!("{path} {}", subcommand.get_name());
    let mut own = Vec::new();
    // The binary's name is the heading's: clap_mangen knows only one level.
    let man = clap_mangen::Man::new(subcommand.clone());
    man.render_description_section(&mut own)?;
    // `serve` has the options that stand above already.
    if subcommand.get_name() != "serve" {
        man.render_options_section(&mut own)?;
    }
    let own = String::from_utf8_lossy(&own);
    let _ = write_section(page, &path, &own);
    for below in subcommand.get_subcommands().filter(|s| s.get_name() != "help") {
        subcommand_section(page, &path, below)?;
    }
    Ok(())
}

fn write_section(page: &mut Vec<u8>, path: &str, own: &str) -> std::fmt::Result {
    let mut text = String::new();
    writeln!(text, ".SS \"sipbox {path}\"")?;
    for line in own
        .lines()
        .filter(|line| !line.starts_with(".SH") && !line.starts_with(".ie") && !line.starts_with(".el"))
    {
        writeln!(text, "{line}")?;
    }
    page.extend_from_slice(text.as_bytes());
    Ok(())
}

fn flags(command: &Command) -> Vec<String> {
    let mut flags: Vec<String> =
        command.get_arguments().filter_map(|arg| arg.get_long().map(str::to_owned)).collect();
    for subcommand in command.get_subcommands() {
        for flag in self::flags(subcommand) {
            if !flags.contains(&flag) {
                flags.push(flag);
            }
        }
    }
    flags
}

fn variables(name: &str, flags: &[String]) -> String {
    let mut text = ".SH ENVIRONMENT\nEach option has variables; the command line wins over them, and the first named here over the second. \
                    Several values are separated by spaces.\n"
        .to_owned();
    for flag in flags {
        let names = environment::names(flag, name);
        if !names.is_empty() {
            let _ = writeln!(text, ".TP\n\\fB\\-\\-{}\\fR\n{}", flag.replace('-', "\\-"), names.join(", "));
        }
    }
    text
}

fn completions(dir: &Path) -> Result<(), Failure> {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut all = crate::toplevel();
        complete(dir, shell, &mut all, "sipbox")?;
        for entry in COMMANDS {
            let name = format!("sipbox-{}", entry.name);
            complete(dir, shell, &mut (entry.command)().name(lasting(&name)), &name)?;
        }
    }
    Ok(())
}

fn complete(dir: &Path, shell: Shell, command: &mut Command, name: &str) -> Result<(), Failure> {
    use clap_complete::Generator;
    let mut script = Vec::new();
    clap_complete::generate(shell, command, name, &mut script);
    write(dir, &shell.file_name(name), &script)
}
