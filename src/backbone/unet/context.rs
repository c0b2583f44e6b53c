//! What a UNet makes of prompts, once for all steps.

use crate::Result;
use crate::backbone::layers::Linear;
use tch::Tensor;

/// The projections of one cross-attention that see the prompt alone.
#[derive(Debug)]
pub(super) struct KeyValue {
    pub(super) projection: Linear,
    pub(super) heads: i64,
}

/// Keys and values of prompts for every cross-attention of a UNet ([`Unet::context`](super::Unet::context)): they do
/// not depend on the step, so one serves a whole run.
///
/// ```no_run
/// use diver::backbone::Unet;
/// use tch::{Kind, Tensor};
///
/// # fn run(unet: &Unet, prompts: &Tensor, z: &Tensor) -> diver::Result<()> {
/// // Two prompts for three images.
/// let context = unet.context(prompts, Some(&[0, 1, 1]))?;
/// for tau in [981_i64, 961, 941] {
///     let eps = unet.forward_in(z, &Tensor::from_slice(&[tau]), &context)?;
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct UnetContext {
    pub(super) attended: Vec<Attended>,
    /// Rows that latents must have; one row serves any number of them.
    pub(super) rows: i64,
}

/// Keys and values of one cross-attention, `[U, heads, tokens, head]`.
#[derive(Debug)]
pub(super) struct Attended {
    key: Tensor,
    value: Tensor,
    /// The prompt of each row, `[R]`; the prompts in order if there is none.
    of_row: Option<Tensor>,
}

impl KeyValue {
    /// Keys and values of embeddings `[U, tokens, width]`.
    pub(super) fn of(&self, embeddings: &Tensor, of_row: Option<&Tensor>) -> Result<Attended> {
        let (prompts, tokens, _) = embeddings.size3()?;
        let both = self.projection.forward(embeddings)?.f_view([prompts, tokens, 2, self.heads, -1])?;
        let both = both.f_permute([2, 0, 3, 1, 4])?.f_contiguous()?;
        let of_row = of_row.map(Tensor::shallow_clone);
        Ok(Attended { key: both.f_select(0, 0)?, value: both.f_select(0, 1)?, of_row })
    }
}

impl Attended {
    /// The keys and values of each of `rows` rows.
    pub(super) fn for_rows(&self, rows: i64) -> Result<(Tensor, Tensor)> {
        let of = |prompts: &Tensor| match &self.of_row {
            Some(of_row) => prompts.f_index_select(0, of_row)?.f_expand([rows, -1, -1, -1], false),
            None => prompts.f_expand([rows, -1, -1, -1], false),
        };
        Ok((of(&self.key)?, of(&self.value)?))
    }
}
