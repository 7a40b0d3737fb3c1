//! Numbers and texts as bytes, little endian, and back without trusting them.

/// Why bytes are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// A length, as `u32`.
///
/// # Panics
/// If it does not fit; the size of records is checked before they are encoded.
pub(super) fn put_len(out: &mut Vec<u8>, len: usize) {
    put_u32(out, u32::try_from(len).expect("records are checked to be smaller than 4 GiB"));
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_len(out, text.len());
    out.extend_from_slice(text.as_bytes());
}

/// Values of `N` bytes each; as fast as copying where memory is little endian.
pub(super) fn put_values<const N: usize, T: Copy>(
    out: &mut Vec<u8>,
    values: &[T],
    to_bytes: impl Fn(T) -> [u8; N],
) {
    let start = out.len();
    out.resize(start + N * values.len(), 0);
    for (place, value) in out[start..].chunks_exact_mut(N).zip(values) {
        place.copy_from_slice(&to_bytes(*value));
    }
}

/// The bytes not read yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unread<'a>(pub(super) &'a [u8]);

impl<'a> Unread<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn len(&mut self) -> Result<usize, Malformed> {
        usize::try_from(self.u32()?).map_err(|_| Malformed("a length is too large"))
    }

    pub(super) fn text(&mut self) -> Result<&'a str, Malformed> {
        let len = self.len()?;
        std::str::from_utf8(self.take(len)?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(super) fn values<const N: usize, T>(
        &mut self,
        count: usize,
        of_bytes: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Malformed> {
        let len = count.checked_mul(N).ok_or(Malformed("a length is too large"))?;
        let (values, _) = self.take(len)?.as_chunks::<N>();
        Ok(values.iter().map(|bytes| of_bytes(*bytes)).collect())
    }

    pub(super) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("it is longer than its contents")) }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("it ends early"))?;
        self.0 = rest;
        Ok(*taken)
    }
}
