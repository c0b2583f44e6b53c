//! The formats of datasets, a file each.

mod archive;
mod dc;
mod idc;
mod image_folder;
mod mtt;
mod table;
mod tensors;
mod webdataset;

pub(super) use archive::Archives;
pub(super) use dc::Dc;
pub(super) use idc::Idc;
pub(super) use image_folder::ImageFolder;
pub(super) use mtt::Mtt;
pub(super) use table::Table;
pub(super) use tensors::{Tensors, open_bytes};
pub(super) use webdataset::WebDataset;
