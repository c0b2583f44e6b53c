//! Archives as people write them: samples of WebDataset in tar files, and class folders in zip and tar files.
#![allow(clippy::unwrap_used)]

mod containers;
mod folders;
mod made;
mod samples;
