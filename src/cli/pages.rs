//! The man pages and the completions of shells, made from the command line.

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;
use clap_mangen::Man;

#[derive(Args, Clone, Debug)]
pub struct ManArgs {
    /// Name of a command of slabd. Without one, the page is that of slabd itself
    command: Option<String>,
}

/// A shell that has completions.
#[derive(ValueEnum, Clone, Copy, Debug)]
pub enum ShellName {
    Bash,
    Zsh,
    Fish,
}

#[derive(Args, Clone, Debug)]
pub struct CompletionsArgs {
    shell: ShellName,
}

impl ManArgs {
    /// Returns the page in the language of man(7). Fails if there is no such command.
    pub fn page(&self, program: Command) -> Result<String, String> {
        let program = program.disable_help_subcommand(true);
        let command = match self.command.as_deref() {
            None => program,
            Some(name) => {
                let Some(found) = program.find_subcommand(name) else {
                    let names: Vec<&str> =
                        program.get_subcommands().map(Command::get_name).collect();
                    let names = names.join(", ");
                    return Err(format!("there is no command '{name}'; accepted: {names}"));
                };
                let title = format!("{}-{name}", program.get_name());
                let usage = format!("{} {name}", program.get_name());
                found.clone().display_name(title).bin_name(usage)
            }
        };
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(|error| error.to_string())?;
        // Lines end between words and are not stretched, so that flags can be searched for.
        Ok(String::from_utf8_lossy(&page).replacen("\n.SH ", "\n.ad l\n.nh\n.SH ", 1))
    }
}

impl CompletionsArgs {
    /// Returns the script that tells the shell the commands and flags.
    pub fn script(&self, mut program: Command) -> String {
        let shell = match self.shell {
            ShellName::Bash => Shell::Bash,
            ShellName::Zsh => Shell::Zsh,
            ShellName::Fish => Shell::Fish,
        };
        let (name, mut script) = (program.get_name().to_string(), Vec::new());
        clap_complete::generate(shell, &mut program, name, &mut script);
        String::from_utf8_lossy(&script).into_owned()
    }
}
