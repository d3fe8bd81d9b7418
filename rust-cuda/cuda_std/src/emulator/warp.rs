//! Meetings of the lanes of a warp: who has to come, and what each gets.

use std::panic::Location;

use super::shape::WARP;
use crate::warp::Direction;

/// What a thread asks for when it has to meet others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Request {
    pub(super) operation: Operation,
    /// The lanes that have to come.
    pub(super) mask: u32,
    /// A predicate or the bits of a value.
    pub(super) value: u64,
    /// The lane or distance of a shuffle.
    pub(super) argument: u32,
    /// The width of a shuffle.
    pub(super) width: u32,
}

/// The kind of a meeting of lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    Sync,
    VoteAll,
    VoteAny,
    Ballot,
    MatchAny,
    Shuffle(Direction),
    /// Asked at this place in the source; lanes elsewhere are not active together with it.
    ActiveMask(&'static Location<'static>),
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Sync => "sync_warp",
            Self::VoteAll => "warp_vote_all",
            Self::VoteAny => "warp_vote_any",
            Self::Ballot => "warp_vote_ballot",
            Self::MatchAny => "warp_match_any",
            Self::Shuffle(Direction::Down) => "warp_shuffle_down",
            Self::Shuffle(Direction::Up) => "warp_shuffle_up",
            Self::Shuffle(Direction::Index) => "warp_shuffle_idx",
            Self::Shuffle(Direction::Xor) => "warp_shuffle_xor",
            Self::ActiveMask(_) => "activemask",
        }
    }
}

/// What a thread gets from a meeting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Answer {
    pub(super) value: u64,
    pub(super) in_range: bool,
}

/// A rule that the lanes of a warp broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Broken {
    /// `lane` leaves itself out of its mask.
    NotInOwnMask { lane: u32 },
    /// `lane` names `other`, which has returned or never was.
    Gone { lane: u32, other: u32 },
    /// `lane` reads `other`, which is not in the mask.
    ReadsOutsideMask { lane: u32, other: u32 },
    /// `lane` and `other` name each other in different calls.
    Differs { lane: u32, other: u32 },
    /// The width that `lane` gave.
    Width { lane: u32 },
}

/// The lanes of one warp, as the scheduler sees them between two runs.
pub(super) trait Lanes {
    fn request(&self, lane: u32) -> Request;
    fn answer(&self, lane: u32, answer: Answer);
}

/// Ends all meetings for which everyone is there; gives the lanes that may go on.
///
/// `waiting` are the lanes that wait in warp operations, `gone` those that have returned or never
/// were. Called when no lane of the warp can run.
pub(super) fn meet(lanes: &impl Lanes, waiting: u32, gone: u32) -> Result<u32, Broken> {
    let mut released = 0;
    let mut left = waiting;
    while left != 0 {
        let lane = left.trailing_zeros();
        left &= !(1 << lane);
        let request = lanes.request(lane);
        if !matches!(request.operation, Operation::ActiveMask(_))
            && all_there(lanes, lane, &request, waiting, gone)?
        {
            answer_all(lanes, &request)?;
            released |= request.mask;
            left &= !request.mask;
        }
    }
    if released == 0 && waiting != 0 {
        // Only now, so that lanes that come together again are seen together.
        released = answer_active_mask(lanes, waiting);
    }
    Ok(released)
}

fn all_there(
    lanes: &impl Lanes,
    lane: u32,
    request: &Request,
    waiting: u32,
    gone: u32,
) -> Result<bool, Broken> {
    if request.mask & 1 << lane == 0 {
        return Err(Broken::NotInOwnMask { lane });
    }
    if request.mask & gone != 0 {
        return Err(Broken::Gone { lane, other: (request.mask & gone).trailing_zeros() });
    }
    let mut all = request.mask & !waiting == 0;
    for other in bits(request.mask & waiting) {
        let theirs = lanes.request(other);
        if theirs.operation == request.operation && theirs.mask == request.mask {
            continue;
        }
        // A lane that is busy with others first may still come; one that waits for this lane in
        // a different call will not.
        if theirs.mask & 1 << lane != 0 {
            return Err(Broken::Differs { lane, other });
        }
        all = false;
    }
    Ok(all)
}

/// Gives all lanes of a complete meeting what they asked for.
fn answer_all(lanes: &impl Lanes, request: &Request) -> Result<(), Broken> {
    let mask = request.mask;
    let votes = || bits(mask).filter(|lane| lanes.request(*lane).value != 0);
    let same = match request.operation {
        Operation::Shuffle(direction) => return answer_shuffle(lanes, direction, mask),
        Operation::MatchAny => {
            answer_match(lanes, mask);
            return Ok(());
        }
        Operation::Sync | Operation::ActiveMask(_) => 0,
        Operation::VoteAll => u64::from(votes().count() == mask.count_ones() as usize),
        Operation::VoteAny => u64::from(votes().count() > 0),
        Operation::Ballot => votes().fold(0, |ballot, lane| ballot | 1 << lane),
    };
    for lane in bits(mask) {
        lanes.answer(lane, Answer { value: same, in_range: true });
    }
    Ok(())
}

fn answer_shuffle(lanes: &impl Lanes, direction: Direction, mask: u32) -> Result<(), Broken> {
    for lane in bits(mask) {
        let Request { argument, width, .. } = lanes.request(lane);
        if !width.is_power_of_two() || width > WARP {
            return Err(Broken::Width { lane });
        }
        let (source, in_range) = direction.source(lane, argument, width);
        if mask & 1 << source == 0 {
            return Err(Broken::ReadsOutsideMask { lane, other: source });
        }
        lanes.answer(lane, Answer { value: lanes.request(source).value, in_range });
    }
    Ok(())
}

fn answer_match(lanes: &impl Lanes, mask: u32) {
    for lane in bits(mask) {
        let value = lanes.request(lane).value;
        let same = bits(mask).filter(|other| lanes.request(*other).value == value);
        let value = same.fold(0, |same, other| same | 1 << other);
        lanes.answer(lane, Answer { value, in_range: true });
    }
}

/// Answers the lanes that ask at the same place in the source as the first one.
fn answer_active_mask(lanes: &impl Lanes, waiting: u32) -> u32 {
    let asks = |lane: &u32| matches!(lanes.request(*lane).operation, Operation::ActiveMask(_));
    let Some(first) = bits(waiting).find(asks) else { return 0 };
    let operation = lanes.request(first).operation;
    let together = |lane: &u32| lanes.request(*lane).operation == operation;
    let mask = bits(waiting).filter(together).fold(0, |mask, lane| mask | 1 << lane);
    for lane in bits(mask) {
        lanes.answer(lane, Answer { value: u64::from(mask), in_range: true });
    }
    mask
}

/// The numbers of the bits that are set.
pub(super) fn bits(mut mask: u32) -> impl Iterator<Item = u32> {
    std::iter::from_fn(move || {
        let bit = (mask != 0).then(|| mask.trailing_zeros())?;
        mask &= mask - 1;
        Some(bit)
    })
}
