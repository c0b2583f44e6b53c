//! Which of a machine's graphics cards belong to this process.
//!
//! Several processes of one training run on one machine, each on a card of its own. Which one, its launcher says:
//! `LOCAL_RANK` (torchrun, accelerate, Lightning), `OMPI_COMM_WORLD_LOCAL_RANK` (Open MPI), `MPI_LOCALRANKID` (MPICH,
//! Intel MPI), `SLURM_LOCALID` (srun); the first of them counts.

use crate::stream::ranks::{Variables, integer};
use crate::{Error, Result};
use std::ops::Range;

/// The card of this process among the `visible` ones: the one of its local rank, or the only one.
///
/// Launchers and schedulers that show each process one card alone number that one 0, whatever the local rank is.
///
/// ```
/// // No launcher started this program.
/// assert_eq!(diver_loaders::cards::own(4)?, 0);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
///
/// # Errors
/// If there are more processes on this machine than cards, or the local rank is no integer.
pub fn own(visible: usize) -> Result<usize> {
    own_of(visible, &|name| std::env::var_os(name))
}

/// All `visible` cards, for a process that shares its machine with no other of its training.
///
/// # Errors
/// If the launcher says that there are several processes on this machine, each of which would take all of several cards;
/// or the local rank is no integer.
pub fn all(visible: usize) -> Result<Range<usize>> {
    all_of(visible, &|name| std::env::var_os(name))
}

/// The place of this process among those of its training on the same machine.
struct Local {
    rank: usize,
    /// How many there are, if the launcher says.
    size: Option<usize>,
    variable: &'static str,
}

fn local(variable: Variables<'_>) -> Result<Option<Local>> {
    const LAUNCHERS: [(&str, Option<&str>); 4] = [
        ("LOCAL_RANK", Some("LOCAL_WORLD_SIZE")),
        ("OMPI_COMM_WORLD_LOCAL_RANK", Some("OMPI_COMM_WORLD_LOCAL_SIZE")),
        ("MPI_LOCALRANKID", Some("MPI_LOCALNRANKS")),
        ("SLURM_LOCALID", None),
    ];
    for (name, size) in LAUNCHERS {
        let Some(text) = variable(name) else { continue };
        let Some(rank) = integer(&text) else {
            let reason =
                format!("the environment has {name}={}, expected an integer", text.to_string_lossy());
            return Err(Error::config("device", reason));
        };
        let size = size.and_then(variable).and_then(|text| integer(&text));
        return Ok(Some(Local { rank, size, variable: name }));
    }
    Ok(None)
}

fn own_of(visible: usize, variable: Variables<'_>) -> Result<usize> {
    match local(variable)? {
        Some(Local { rank, variable, .. }) if visible > 1 => {
            if rank < visible {
                return Ok(rank);
            }
            let reason = format!(
                "{variable} is {rank}, but this process sees only {visible} CUDA devices: start fewer processes on \
                 this machine, or name the device, as in cuda:0"
            );
            Err(Error::config("device", reason))
        }
        _ => Ok(0),
    }
}

fn all_of(visible: usize, variable: Variables<'_>) -> Result<Range<usize>> {
    match local(variable)? {
        Some(Local { rank, size, variable })
            if visible > 1 && (rank > 0 || size.is_some_and(|size| size > 1)) =>
        {
            let reason = format!(
                "cuda:all takes all {visible} CUDA devices, but this process is one of several on this machine \
                 ({variable} is {rank}): write cuda for the process's own device, or list devices, as in \
                 cuda:0,cuda:1"
            );
            Err(Error::config("device", reason))
        }
        _ => Ok(0..visible),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;

    fn with<T>(variables: &str, of: impl Fn(Variables<'_>) -> Result<T>) -> Result<T> {
        of(&|name: &str| {
            variables
                .split(' ')
                .find_map(|given| given.strip_prefix(name)?.strip_prefix('='))
                .map(OsString::from)
        })
    }

    fn own(variables: &str, visible: usize) -> Result<usize> {
        with(variables, |variable| own_of(visible, variable))
    }

    fn all(variables: &str, visible: usize) -> Result<Range<usize>> {
        with(variables, |variable| all_of(visible, variable))
    }

    #[test]
    fn each_process_has_its_own_card() {
        for variable in ["LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID"] {
            for rank in 0..4 {
                assert_eq!(own(&format!("{variable}={rank}"), 4).unwrap(), rank, "{variable}");
                // Isolated by CUDA_VISIBLE_DEVICES.
                assert_eq!(own(&format!("{variable}={rank}"), 1).unwrap(), 0, "{variable}");
            }
        }
        assert_eq!(own("LOCAL_RANK=1 SLURM_LOCALID=0", 4).unwrap(), 1, "torchrun in a task of srun");
        assert_eq!(own("", 4).unwrap(), 0);
        assert_eq!(own("LOCAL_RANK=3", 0).unwrap(), 0, "that there is none is said elsewhere");
    }

    #[test]
    fn a_process_too_many_is_refused() {
        for (variables, name) in
            [("LOCAL_RANK=2", "LOCAL_RANK is 2"), ("SLURM_LOCALID=7", "SLURM_LOCALID is 7")]
        {
            let error = own(variables, 2).unwrap_err();
            assert!(matches!(error, Error::Config { option: "device", .. }));
            assert!(error.to_string().contains(name), "{error}");
        }
        for bad in ["LOCAL_RANK=x", "LOCAL_RANK=-1", "LOCAL_RANK="] {
            assert!(own(bad, 2).unwrap_err().to_string().contains(bad));
        }
    }

    #[test]
    fn all_cards_are_for_a_process_that_is_alone_on_its_machine() {
        for alone in ["", "LOCAL_RANK=0", "LOCAL_RANK=0 LOCAL_WORLD_SIZE=1", "SLURM_LOCALID=0"] {
            assert_eq!(all(alone, 4).unwrap(), 0..4, "{alone}");
        }
        for shared in ["LOCAL_RANK=0 LOCAL_WORLD_SIZE=2", "LOCAL_RANK=1", "SLURM_LOCALID=1"] {
            let error = all(shared, 4).unwrap_err().to_string();
            assert!(error.contains("cuda:all") && error.contains("one of several"), "{error}");
            assert_eq!(all(shared, 1).unwrap(), 0..1, "{shared}: the one that it sees is its own");
        }
    }
}
