//! Random shifts of images.

use tch::{Kind, Tensor};

/// Each image of `[B, C, H, W]` moved by up to `limit` pixels along both axes, its edges repeated.
pub(super) fn shifted(images: &Tensor, limit: u32, random: &mut Random) -> Tensor {
    let [batch, _, height, width] = images.size()[..] else { return images.shallow_clone() };
    // Where each row and column of the result comes from, [B, size].
    let mut origins = |size: i64| {
        let moves: Vec<i64> = (0..batch).map(|_| random.within(limit)).collect();
        (Tensor::arange(size, (Kind::Int64, images.device()))
            + Tensor::from_slice(&moves).to_device(images.device()).unsqueeze(1))
        .clamp(0, size - 1)
    };
    let (rows, columns) = (origins(height).unsqueeze(2), origins(width).unsqueeze(1));
    let image = Tensor::arange(batch, (Kind::Int64, images.device())).view([batch, 1, 1]);
    // Back in the layout that convolutions and norms are most exact in: the permuted result is channels-last.
    let moved = images.permute([0, 2, 3, 1]).index(&[Some(image), Some(rows), Some(columns)]);
    moved.permute([0, 3, 1, 2]).contiguous()
}

/// SplitMix64: what is drawn depends on the seed alone, whatever else draws from torch's generator.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A whole number from 0 to `numbers - 1`; 0 if there are none.
    pub(crate) fn below(&mut self, numbers: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(numbers)) >> 64) as u64
    }

    /// A whole number from `-limit` to `limit`.
    fn within(&mut self, limit: u32) -> i64 {
        self.below(2 * u64::from(limit) + 1) as i64 - i64::from(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

    #[test]
    fn shifts_repeat_edges_and_move_whole_images() {
        let images = Tensor::arange(2 * 3 * 32 * 32, FLOAT).view([2, 3, 32, 32]);
        let moved = shifted(&images, 3, &mut Random(5));
        let mut random = Random(5);
        let [row_a, row_b, column_a, column_b] = [(); 4].map(|()| random.within(3));
        for (image, row, column) in [(0, row_a, column_a), (1, row_b, column_b)] {
            for (to_row, to_column) in [(0, 0), (31, 31), (10, 20)] {
                let from = [(to_row + row).clamp(0, 31), (to_column + column).clamp(0, 31)];
                for channel in 0..3 {
                    let found = moved.double_value(&[image, channel, to_row, to_column]);
                    assert_eq!(found, images.double_value(&[image, channel, from[0], from[1]]));
                }
            }
        }
        assert_eq!(shifted(&images, 0, &mut Random(5)), images);
    }

    #[test]
    fn shifts_cover_their_range_evenly() {
        let mut random = Random(0);
        let mut counts = [0_usize; 7];
        for _ in 0..7000 {
            counts[(random.within(3) + 3) as usize] += 1;
        }
        assert!(counts.iter().all(|n| (900..1100).contains(n)), "{counts:?}");
    }
}
