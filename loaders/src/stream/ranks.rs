//! Which share of an epoch belongs to this process.

use crate::{Error, Result};
use std::ffi::OsString;
use std::fmt;

/// The rank of this process among the processes that share an epoch.
///
/// ```
/// use diver_loaders::{Loader, MemorySource, Ranks};
///
/// let set = MemorySource::unit(6, [1, 1, 1], vec![0.5; 6], vec![0; 6])?;
/// // One process gets every sample; one of two that torchrun, mpirun or srun started gets half of them.
/// let loader = Loader::builder(set).ranks(Ranks::from_env()?).batch_size(2).build()?;
/// # assert_eq!(loader.len(), 3);
/// # Ok::<(), diver_loaders::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranks {
    rank: usize,
    world_size: usize,
    origin: Origin,
}

/// What decided the ranks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Origin {
    /// Nothing: there is one process.
    #[default]
    Alone,
    /// The program.
    Given,
    /// Two variables, by name.
    Variables(&'static str, &'static str),
}

impl Default for Ranks {
    /// Rank 0 of 1: this process gets every sample.
    fn default() -> Self {
        Self { rank: 0, world_size: 1, origin: Origin::Alone }
    }
}

impl Ranks {
    /// Rank `rank` of `world_size`.
    ///
    /// # Errors
    /// If `rank` is not below `world_size`.
    pub fn new(rank: usize, world_size: usize) -> Result<Self> {
        if rank >= world_size {
            let reason = format!("{rank} of {world_size}: ranks run from 0 to world_size - 1");
            return Err(Error::config("rank", reason));
        }
        Ok(Self { rank, world_size, origin: Origin::Given })
    }

    /// Reads the ranks that a launcher has set in environment variables. The first of these pairs counts:
    ///
    /// 1. `RANK` and `WORLD_SIZE` (torchrun, accelerate, most others).
    /// 2. `LOCAL_RANK` and `WORLD_SIZE` where `NODE_RANK` is 0: Lightning's launcher sets these and no `RANK`, and on
    ///    the first node both ranks are the same.
    /// 3. `OMPI_COMM_WORLD_RANK` and `OMPI_COMM_WORLD_SIZE` (Open MPI), `PMI_RANK` and `PMI_SIZE` (MPICH, Intel MPI).
    ///    They come before Slurm's, because `mpirun` may start its processes inside of one Slurm task for each node.
    /// 4. `SLURM_PROCID` and `SLURM_NTASKS` (or `SLURM_STEP_NUM_TASKS`, the number of tasks in the step, if it is set)
    ///    in a task that `srun` started. Slurm also sets `SLURM_PROCID` or `SLURM_NTASKS` for single processes. Such a
    ///    process gets every sample: a batch script (`ENVIRONMENT` is `BATCH`, and there is no `SLURM_STEP_ID`), the
    ///    shell that `salloc` opens on a node (its `SLURM_STEP_ID` is a special one), and any program outside of a step
    ///    if `SLURM_JOB_NAME` is `interactive` or the name of a shell.
    ///
    /// Without any of these pairs, the process is rank 0 of 1. A size of 1 without a rank is ignored.
    ///
    /// # Errors
    /// If one variable of a pair is missing, or the two are not integers with the rank below the size.
    pub fn from_env() -> Result<Self> {
        Self::from_variables(&|name| std::env::var_os(name))
    }

    fn from_variables(variable: Variables<'_>) -> Result<Self> {
        let found = match lightning(variable)? {
            None => pair(variable, "RANK", "WORLD_SIZE")?,
            found => found,
        };
        if let Some(ranks) = found {
            return Ok(ranks);
        }
        for (rank, size) in [("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"), ("PMI_RANK", "PMI_SIZE")] {
            if let Some(ranks) = pair(variable, rank, size)? {
                return Ok(ranks);
            }
        }
        Ok(slurm(variable)?.unwrap_or_default())
    }

    /// This process's rank, below the world size.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// The number of processes that share an epoch, at least 1.
    #[must_use]
    pub fn world_size(&self) -> usize {
        self.world_size
    }

    /// What decided the ranks, as in `RANK and WORLD_SIZE`; none if nothing did, so that there is one process.
    #[must_use]
    pub fn origin(&self) -> Option<String> {
        match self.origin {
            Origin::Alone => None,
            Origin::Given => Some("arguments".into()),
            Origin::Variables(rank, size) => Some(format!("{rank} and {size}")),
        }
    }

    /// Whether the program did not say them itself.
    pub(super) fn is_found(&self) -> bool {
        matches!(self.origin, Origin::Variables(..))
    }

    /// Ranks of the program that are checked later, with the plan.
    pub(super) fn unchecked(rank: usize, world_size: usize) -> Self {
        Self { rank, world_size, origin: Origin::Given }
    }
}

impl fmt::Display for Ranks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rank {} of {}", self.rank, self.world_size)?;
        self.origin().map_or(Ok(()), |origin| write!(f, " ({origin})"))
    }
}

/// Gives an environment variable by its name.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The ranks that a pair of variables says; none if both are missing, or one process has no rank.
fn pair(variable: Variables<'_>, rank: &'static str, size: &'static str) -> Result<Option<Ranks>> {
    let (here, all) = match (variable(rank), variable(size)) {
        (None, None) => return Ok(None),
        (None, Some(size)) if size == "1" => return Ok(None),
        (Some(here), Some(all)) => (here, all),
        (here, _) => {
            let (set, missing) = if here.is_some() { (rank, size) } else { (size, rank) };
            let value = variable(set).unwrap_or_default();
            return Err(refused(format!(
                "the environment has {set}={} but no {missing}",
                value.to_string_lossy()
            )));
        }
    };
    if let (Some(here), Some(all)) = (integer(&here), integer(&all))
        && here < all
    {
        return Ok(Some(Ranks { rank: here, world_size: all, origin: Origin::Variables(rank, size) }));
    }
    Err(refused(format!(
        "the environment has {rank}={} and {size}={}, expected two integers with 0 <= {rank} < {size}",
        here.to_string_lossy(),
        all.to_string_lossy()
    )))
}

fn refused(fault: String) -> Error {
    Error::config(
        "rank",
        format!(
            "{fault}; pass `rank` and `world_size`, or set both variables (`rank=0, world_size=1` is one process)"
        ),
    )
}

pub(crate) fn integer(text: &std::ffi::OsStr) -> Option<usize> {
    let text = text.to_str()?;
    // `parse` would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

/// Lightning's launcher starts each process but the first of a node with these, and leaves `RANK` to
/// `init_process_group`, before which the program makes its loader. Elsewhere than on the first node, the number of
/// processes of a node would have to be guessed.
fn lightning(variable: Variables<'_>) -> Result<Option<Ranks>> {
    let is_first_node = variable("NODE_RANK").is_some_and(|node| node == "0");
    let are_both = variable("LOCAL_RANK").is_some() && variable("WORLD_SIZE").is_some();
    if variable("RANK").is_none() && is_first_node && are_both {
        pair(variable, "LOCAL_RANK", "WORLD_SIZE")
    } else {
        Ok(None)
    }
}

/// The first of the IDs that Slurm keeps for steps without tasks: batch scripts, interactive shells, prologs.
const SPECIAL_STEPS: usize = 0xffff_fff0;

/// Names of jobs in which users start programs by hand.
const SHELLS: [&str; 9] = ["interactive", "bash", "sh", "zsh", "fish", "dash", "ksh", "csh", "tcsh"];

fn slurm(variable: Variables<'_>) -> Result<Option<Ranks>> {
    const RANK: &str = "SLURM_PROCID";
    let is = |name: &str, values: &[&str]| {
        variable(name).is_some_and(|found| values.iter().any(|value| found == *value))
    };
    let step = variable("SLURM_STEP_ID");
    let is_task = match &step {
        // Every task of srun has the ID of its step. The job's name says nothing here: srun passes on that of the shell
        // in which it is called.
        Some(id) => integer(id).is_none_or(|id| id < SPECIAL_STEPS) && !id.to_string_lossy().starts_with('-'),
        None => {
            let may_be_alone = variable(RANK).is_none_or(|rank| rank == "0");
            !(may_be_alone && (is("ENVIRONMENT", &["BATCH"]) || is("SLURM_JOB_NAME", &SHELLS)))
        }
    };
    if !is_task {
        if variable("SLURM_NTASKS").is_some_and(|tasks| tasks != "1") {
            tracing::info!(
                "rank 0 of 1: SLURM_NTASKS is more than 1, but srun did not start this process; with srun, each task \
                 gets a share of the samples"
            );
        }
        return Ok(None);
    }
    // srun --preserve-env leaves the job's count in SLURM_NTASKS.
    let has_step_size = step.is_some() && variable("SLURM_STEP_NUM_TASKS").is_some();
    pair(variable, RANK, if has_step_size { "SLURM_STEP_NUM_TASKS" } else { "SLURM_NTASKS" })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What variables say, as in `RANK=1 WORLD_SIZE=2`.
    fn read(variables: &str) -> Result<Ranks> {
        let of = |name: &str| {
            variables
                .split(' ')
                .find_map(|given| given.strip_prefix(name)?.strip_prefix('='))
                .map(OsString::from)
        };
        Ranks::from_variables(&of)
    }

    fn found(variables: &str) -> (usize, usize, Option<String>) {
        let ranks = read(variables).unwrap();
        (ranks.rank(), ranks.world_size(), ranks.origin())
    }

    fn by(rank: usize, world_size: usize, origin: &str) -> (usize, usize, Option<String>) {
        (rank, world_size, Some(origin.to_owned()))
    }

    #[test]
    fn each_launcher_is_read() {
        let torchrun = "RANK and WORLD_SIZE";
        assert_eq!(found("RANK=1 WORLD_SIZE=2"), by(1, 2, torchrun));
        assert_eq!(found("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 NODE_RANK=0"), by(5, 8, torchrun));
        assert_eq!(found("WORLD_SIZE=4 LOCAL_RANK=3 NODE_RANK=0"), by(3, 4, "LOCAL_RANK and WORLD_SIZE"));
        let open_mpi = "OMPI_COMM_WORLD_RANK=3 OMPI_COMM_WORLD_SIZE=4";
        assert_eq!(found(open_mpi), by(3, 4, "OMPI_COMM_WORLD_RANK and OMPI_COMM_WORLD_SIZE"));
        assert_eq!(found("PMI_RANK=0 PMI_SIZE=2"), by(0, 2, "PMI_RANK and PMI_SIZE"));
        for rank in 0..2 {
            let slurm = format!("SLURM_PROCID={rank} SLURM_NTASKS=2 SLURM_LOCALID={rank} SLURM_JOB_ID=1");
            assert_eq!(found(&slurm), by(rank, 2, "SLURM_PROCID and SLURM_NTASKS"));
        }
        assert_eq!(
            read(open_mpi).unwrap().to_string(),
            format!("rank 3 of 4 ({})", found(open_mpi).2.unwrap())
        );
    }

    #[test]
    fn the_nearer_launcher_is_believed() {
        let slurm = "SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_STEP_ID=0";
        assert_eq!(found(&format!("{slurm} RANK=5 WORLD_SIZE=8")), by(5, 8, "RANK and WORLD_SIZE"));
        assert_eq!(found(&format!("{slurm} RANK=0 WORLD_SIZE=1")), by(0, 1, "RANK and WORLD_SIZE"));
        assert_eq!(found(&format!("{slurm} PMI_RANK=5 PMI_SIZE=8")), by(5, 8, "PMI_RANK and PMI_SIZE"));
        // A size of 1 without a rank is no launcher's.
        assert_eq!(found(&format!("{slurm} WORLD_SIZE=1")), by(1, 2, "SLURM_PROCID and SLURM_NTASKS"));
    }

    #[test]
    fn one_process_is_rank_0_of_1() {
        for alone in ["", "WORLD_SIZE=1", "SLURM_NTASKS=1", "PMI_SIZE=1", "LOCAL_RANK=1", "SLURM_JOB_ID=7"] {
            assert_eq!(read(alone).unwrap(), Ranks::default(), "{alone}");
        }
    }

    /// Slurm's documentation and its source (`env.c`) say what is set where.
    #[test]
    fn slurm_sets_the_pair_also_where_it_starts_one_process() {
        for alone in [
            // Batch scripts, with --ntasks and without.
            "ENVIRONMENT=BATCH SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0 SLURM_JOB_NAME=train",
            "ENVIRONMENT=BATCH SLURM_PROCID=0 SLURM_LOCALID=0",
            // The shell that salloc opens on a node, and on the host that it is called on.
            "SLURM_STEP_ID=4294967290 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_NTASKS=4",
            "SLURM_STEP_ID=-6 SLURM_PROCID=0 SLURM_NTASKS=4",
            "SLURM_NTASKS=4 SLURM_JOB_NAME=interactive",
            "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_JOB_NAME=bash",
            "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=1 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_JOB_NAME=bash",
        ] {
            let ranks = read(alone).unwrap();
            assert_eq!((ranks.rank(), ranks.world_size()), (0, 1), "{alone}");
        }
    }

    #[test]
    fn srun_in_a_script_or_shell_starts_tasks() {
        let step = "SLURM_STEP_ID=0 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=2";
        for rank in 0..2 {
            for around in ["ENVIRONMENT=BATCH", "SLURM_JOB_NAME=interactive", "SLURM_JOB_NAME=bash"] {
                let ranks = read(&format!("{around} {step} SLURM_PROCID={rank}")).unwrap();
                assert_eq!((ranks.rank(), ranks.world_size()), (rank, 2), "{around}");
            }
        }
        // A step of two tasks in a job of eight, with --preserve-env.
        let kept = "SLURM_STEP_ID=3 SLURM_STEP_NUM_TASKS=2 SLURM_NTASKS=8 SLURM_PROCID=1";
        assert_eq!(found(kept), by(1, 2, "SLURM_PROCID and SLURM_STEP_NUM_TASKS"));
    }

    #[test]
    fn what_is_no_pair_of_numbers_is_refused_by_name() {
        for (variables, names) in [
            ("WORLD_SIZE=2", ["WORLD_SIZE=2", "RANK"]),
            ("RANK=0", ["RANK=0", "WORLD_SIZE"]),
            ("WORLD_SIZE=2 LOCAL_RANK=0", ["WORLD_SIZE=2", "RANK"]),
            ("WORLD_SIZE=4 LOCAL_RANK=0 NODE_RANK=1", ["WORLD_SIZE=4", "RANK"]),
            ("WORLD_SIZE=2 LOCAL_RANK=2 NODE_RANK=0", ["LOCAL_RANK=2", "WORLD_SIZE=2"]),
            ("SLURM_NTASKS=2 SLURM_JOB_ID=1", ["SLURM_NTASKS=2", "SLURM_PROCID"]),
            ("SLURM_PROCID=1", ["SLURM_PROCID=1", "SLURM_NTASKS"]),
            ("OMPI_COMM_WORLD_RANK=1", ["OMPI_COMM_WORLD_RANK=1", "OMPI_COMM_WORLD_SIZE"]),
            ("PMI_SIZE=2", ["PMI_SIZE=2", "PMI_RANK"]),
            ("RANK=2 WORLD_SIZE=2", ["RANK=2", "WORLD_SIZE=2"]),
            ("RANK=x WORLD_SIZE=2", ["RANK=x", "WORLD_SIZE=2"]),
            ("RANK=-1 WORLD_SIZE=2", ["RANK=-1", "WORLD_SIZE=2"]),
            ("RANK=+1 WORLD_SIZE=2", ["RANK=+1", "WORLD_SIZE=2"]),
            ("RANK=0 WORLD_SIZE=", ["RANK=0", "WORLD_SIZE="]),
            ("RANK=0 WORLD_SIZE=0", ["RANK=0", "WORLD_SIZE=0"]),
            ("RANK=0 WORLD_SIZE=99999999999999999999", ["RANK=0", "WORLD_SIZE=99999999999999999999"]),
            ("SLURM_PROCID=1.0 SLURM_NTASKS=2", ["SLURM_PROCID=1.0", "SLURM_NTASKS=2"]),
        ] {
            let error = read(variables).unwrap_err();
            assert!(matches!(error, Error::Config { option: "rank", .. }), "{error:?}");
            let text = error.to_string();
            assert!(names.iter().all(|name| text.contains(name)), "{variables}: {text}");
        }
    }

    #[test]
    #[cfg(unix)]
    fn bytes_that_are_no_text_are_refused() {
        use std::os::unix::ffi::OsStringExt as _;
        let of = |name: &str| match name {
            "RANK" => Some(OsString::from_vec(vec![0xff])),
            "WORLD_SIZE" => Some("2".into()),
            _ => None,
        };
        assert!(matches!(Ranks::from_variables(&of), Err(Error::Config { option: "rank", .. })));
    }

    #[test]
    fn a_program_says_its_ranks() {
        let ranks = Ranks::new(1, 2).unwrap();
        assert_eq!(ranks.to_string(), "rank 1 of 2 (arguments)");
        assert!(Ranks::new(2, 2).is_err() && Ranks::new(0, 0).is_err());
    }
}
