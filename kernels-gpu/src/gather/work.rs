//! What a block has to do.

use super::piece::Share;
use super::tile::Tile;
use crate::args::GatherArgs;
use crate::block::Place;
use crate::limits::LONG_LIST;
use cuda_std::thread;

/// The work of a block: a piece of a list, a tile that its warps share, or some tiles for each warp.
pub(super) struct Work {
    /// The batch item.
    pub(super) item: u32,
    /// Whether the warps share the tile.
    pub(super) is_shared: bool,
    /// Tiles of each warp.
    pub(super) tiles: u32,
    /// The tile that the calling lane looks up for its warp, with the part of its list that is the warp's; without pixels where
    /// it has none, and where other blocks have the pieces of its list.
    pub(super) own: Tile,
}

impl Work {
    /// That of the calling block, which has `share` if it is there for a piece.
    ///
    /// # Safety
    ///
    /// The pointers of `args` are valid as it says; the lists are sorted.
    #[inline(always)]
    pub(super) unsafe fn new<T>(args: &GatherArgs<T>, place: Place, share: Option<Share>) -> Self {
        let (most, lane) = (args.pieces.most, place.warp_lane);
        let (block, item) = args.by_batch.divide(thread::block_idx_x().saturating_sub(most));
        let item = share.map_or(item, |share| share.piece.item);
        let is_shared = share.is_some() || block < args.shared_blocks;
        let tiles = if is_shared { 1 } else { args.blocks_at_a_time };
        // The tiles of the blocks of work `block`, `block + step`, …: from maps of every size, so that warps that wait for
        // samples run beside warps that write zeros.
        let mut number = (block + lane * args.step) * place.warps;
        if let Some(share) = share {
            number = share.piece.tile;
        } else if !is_shared {
            number += place.warp;
        }
        let mut own = Tile::NONE;
        // SAFETY: the caller's promise.
        unsafe {
            if lane < tiles {
                own = Tile::new(args, item, number);
            }
            if let Some(share) = share {
                own.list = own.list.part(share.number - share.piece.first, share.piece.of);
            } else if own.list.count > LONG_LIST && args.pieces.are_cut() {
                own = Tile::NONE;
            }
        }
        if is_shared {
            own.list = own.list.part(place.warp, place.warps);
        }
        Self { item, is_shared, tiles, own }
    }
}
