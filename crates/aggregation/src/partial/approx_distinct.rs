//! How many different values there are, approximately.

use std::collections::BTreeSet;

use super::Partial;
use super::encoding::{DecodeError, EMPTY, Function, body_of, finished, put_header};

/// So many bits of a hash choose its register.
const INDEX_BITS: u32 = 14;
const REGISTERS: usize = 1 << INDEX_BITS;
/// Greatest rank: that of a hash whose other bits are all 0.
const MAX_RANK: u8 = (u64::BITS - INDEX_BITS) as u8 + 1;
/// Most hashes that are kept as they are: as many as take the bytes of the registers.
const MOST_HASHES: usize = DENSE_BYTES / 8;
/// Bytes of the encoded registers, six bits each.
const DENSE_BYTES: usize = REGISTERS * 6 / 8;

/// Form of the registers; form 0 are the hashes.
const DENSE: u8 = 1;

/// The hashes of all values while there are few, then the greatest rank of each register.
///
/// Up to 1,536 values the answer is exact; beyond that its standard error is 0.8 % (1.04 / √2^14).
/// Which of the two forms is kept depends on the set of hashes alone, and so does the answer: the
/// order of values and merges never counts.
///
/// Source: Flajolet et al., HyperLogLog, AofA 2007; the estimate is that of Ertl, New cardinality
/// estimation algorithms for HyperLogLog sketches, 2017, section 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApproxDistinct(State);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Few(BTreeSet<u64>),
    Many(Box<[u8; REGISTERS]>),
}

impl ApproxDistinct {
    /// Takes in one value by its hash, see [`Member::hash`](super::member::Member::hash).
    #[inline]
    pub fn update(&mut self, hash: u64) {
        match &mut self.0 {
            State::Many(registers) => raise(registers, hash),
            State::Few(hashes) => {
                hashes.insert(hash);
                if hashes.len() > MOST_HASHES {
                    self.0 = State::Many(registers_of(hashes));
                }
            }
        }
    }

    /// About how many different values were seen.
    pub fn finish(&self) -> u64 {
        match &self.0 {
            State::Few(hashes) => hashes.len() as u64,
            State::Many(registers) => estimate(registers).round() as u64,
        }
    }
}

#[inline]
fn raise(registers: &mut [u8; REGISTERS], hash: u64) {
    let index = (hash >> (u64::BITS - INDEX_BITS)) as usize;
    // The bit below the others ends a run of zeros that takes up all of them.
    let rest = hash << INDEX_BITS | 1 << (INDEX_BITS - 1);
    let rank = rest.leading_zeros() as u8 + 1;
    registers[index] = registers[index].max(rank);
}

fn registers_of(hashes: &BTreeSet<u64>) -> Box<[u8; REGISTERS]> {
    let mut registers = Box::new([0; REGISTERS]);
    hashes.iter().for_each(|hash| raise(&mut registers, *hash));
    registers
}

/// Ertl's improved estimate: sums and roots in a fixed order, so the same on every machine.
fn estimate(registers: &[u8; REGISTERS]) -> f64 {
    let mut with_rank = [0u32; MAX_RANK as usize + 1];
    registers.iter().for_each(|rank| with_rank[usize::from(*rank)] += 1);
    let all = REGISTERS as f64;
    let share = |rank: usize| f64::from(with_rank[rank]) / all;
    let top = usize::from(MAX_RANK);
    let mut below = all * tau(1.0 - share(top));
    for rank in (1..top).rev() {
        below = 0.5 * (below + f64::from(with_rank[rank]));
    }
    below += all * sigma(share(0));
    all * all / (2.0 * std::f64::consts::LN_2 * below)
}

/// x + Σ x^(2^k) · 2^(k - 1) for k from 1 on.
fn sigma(mut x: f64) -> f64 {
    if x == 1.0 {
        return f64::INFINITY;
    }
    let (mut factor, mut sum) = (1.0, x);
    loop {
        let before = sum;
        x *= x;
        sum += x * factor;
        factor += factor;
        if sum == before {
            return sum;
        }
    }
}

/// (1 - x - Σ (1 - x^(2^-k))² · 2^-k) / 3 for k from 1 on.
fn tau(mut x: f64) -> f64 {
    if x == 0.0 || x == 1.0 {
        return 0.0;
    }
    let (mut factor, mut sum) = (1.0, 1.0 - x);
    loop {
        let before = sum;
        x = x.sqrt();
        factor *= 0.5;
        sum -= (1.0 - x) * (1.0 - x) * factor;
        if sum == before {
            return sum / 3.0;
        }
    }
}

impl Partial for ApproxDistinct {
    fn merge(&mut self, other: &Self) {
        match (&mut self.0, &other.0) {
            (_, State::Few(hashes)) => hashes.iter().for_each(|hash| self.update(*hash)),
            (State::Many(own), State::Many(others)) => {
                own.iter_mut()
                    .zip(others.iter())
                    .for_each(|(own, other)| *own = (*own).max(*other));
            }
            (State::Few(hashes), State::Many(others)) => {
                let mut registers = others.clone();
                hashes.iter().for_each(|hash| raise(&mut registers, *hash));
                self.0 = State::Many(registers);
            }
        }
    }

    fn is_empty(&self) -> bool {
        matches!(&self.0, State::Few(hashes) if hashes.is_empty())
    }

    fn encode(&self, bytes: &mut Vec<u8>) {
        match &self.0 {
            State::Few(hashes) => {
                let form = if hashes.is_empty() { EMPTY } else { 0 };
                put_header(bytes, Function::ApproxDistinct, None, form);
                hashes.iter().for_each(|hash| bytes.extend_from_slice(&hash.to_le_bytes()));
            }
            State::Many(registers) => {
                put_header(bytes, Function::ApproxDistinct, None, DENSE);
                bytes.extend(registers.as_chunks::<4>().0.iter().flat_map(packed));
            }
        }
    }

    fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let (form, body) = body_of(bytes, Function::ApproxDistinct, None)?;
        match form {
            0 => decode_hashes(body).map(State::Few),
            DENSE => decode_registers(body).map(State::Many),
            EMPTY => finished(body).map(|()| State::Few(BTreeSet::new())),
            form => Err(DecodeError::UnknownForm { function: Function::ApproxDistinct, form }),
        }
        .map(ApproxDistinct)
    }

    const HAS_HEAP: bool = true;

    fn heap_bytes(&self) -> usize {
        match &self.0 {
            State::Few(hashes) => hashes.len() * 2 * size_of::<u64>(),
            State::Many(_) => REGISTERS,
        }
    }
}

/// Four registers in three bytes, the first in the lowest bits.
fn packed(ranks: &[u8; 4]) -> [u8; 3] {
    let bits = ranks.iter().rev().fold(0u32, |bits, rank| bits << 6 | u32::from(*rank));
    let [first, second, third, _] = bits.to_le_bytes();
    [first, second, third]
}

fn unpacked(&[first, second, third]: &[u8; 3]) -> [u8; 4] {
    let bits = u32::from_le_bytes([first, second, third, 0]);
    [0, 6, 12, 18].map(|shift| (bits >> shift) as u8 & 63)
}

fn decode_hashes(body: &[u8]) -> Result<BTreeSet<u64>, DecodeError> {
    let (hashes, rest) = body.as_chunks::<8>();
    finished(rest)?;
    let hashes: Vec<u64> = hashes.iter().map(|hash| u64::from_le_bytes(*hash)).collect();
    let is_sound = (1..=MOST_HASHES).contains(&hashes.len()) && hashes.is_sorted_by(|a, b| a < b);
    if is_sound { Ok(hashes.into_iter().collect()) } else { Err(DecodeError::OutOfRange) }
}

fn decode_registers(body: &[u8]) -> Result<Box<[u8; REGISTERS]>, DecodeError> {
    match body.len() {
        ..DENSE_BYTES => return Err(DecodeError::Truncated),
        DENSE_BYTES => {}
        _ => return Err(DecodeError::Trailing),
    }
    let mut registers = Box::new([0; REGISTERS]);
    let ranks = body.as_chunks::<3>().0.iter().flat_map(unpacked);
    for (register, rank) in registers.iter_mut().zip(ranks) {
        if rank > MAX_RANK {
            return Err(DecodeError::OutOfRange);
        }
        *register = rank;
    }
    Ok(registers)
}

impl Default for ApproxDistinct {
    fn default() -> Self {
        ApproxDistinct(State::Few(BTreeSet::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::member::Member;
    use super::*;

    fn of(values: impl Iterator<Item = u64>) -> ApproxDistinct {
        let mut partial = ApproxDistinct::default();
        values.for_each(|value| partial.update(<u64 as Member>::hash(value)));
        partial
    }

    #[test]
    fn few_are_counted_exactly() {
        assert_eq!(of(std::iter::empty()).finish(), 0);
        assert_eq!(of((0..5000).map(|n| n % 1536)).finish(), 1536);
    }

    #[test]
    fn many_are_estimated_within_three_standard_errors() {
        for count in [1537u64, 5_000, 20_000, 60_000, 200_000, 1_000_000] {
            let estimate = of(0..count).finish();
            let error = (estimate as f64 / count as f64 - 1.0).abs();
            assert!(error < 0.025, "{estimate} for {count}");
        }
    }

    #[test]
    fn the_form_depends_on_the_set_alone() {
        let whole = of(0..3000);
        for (a, b) in [(0..100, 50..3000), (0..1536, 1000..3000), (0..2000, 1000..3000)] {
            let (a, b) = (of(a), of(b));
            for (mut one, other) in [(a.clone(), &b), (b.clone(), &a)] {
                one.merge(other);
                assert_eq!(one, whole);
            }
        }
        let mut bytes = Vec::new();
        whole.encode(&mut bytes);
        assert_eq!((bytes.len(), ApproxDistinct::decode(&bytes)), (2 + 12_288, Ok(whole)));
        bytes.push(0);
        assert_eq!(ApproxDistinct::decode(&bytes), Err(DecodeError::Trailing));
    }

    #[test]
    fn registers_are_packed_without_loss() {
        assert_eq!(unpacked(&packed(&[1, 51, 0, 7])), [1, 51, 0, 7]);
        assert_eq!(packed(&[1, 0, 0, 0]), [1, 0, 0]);
        let mut registers = [0; REGISTERS];
        raise(&mut registers, 0);
        assert_eq!(registers[0], MAX_RANK);
        raise(&mut registers, u64::MAX);
        assert_eq!(registers[REGISTERS - 1], 1);
    }
}
