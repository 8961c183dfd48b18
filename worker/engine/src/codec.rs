//! Bytes in and out: little-endian, fixed width, bounds-checked. Every format of the engine is written with it.

/// What was read is not what was written: truncated, or out of range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("corrupt {what} at byte {at}")]
pub struct Corrupt {
    pub what: &'static str,
    /// Byte offset within the buffer that was read.
    pub at: usize,
}

/// Appends to a buffer.
pub trait Put {
    fn put(&mut self, bytes: &[u8]);
    #[inline]
    fn put_u8(&mut self, v: u8) {
        self.put(&[v]);
    }
    #[inline]
    fn put_u16(&mut self, v: u16) {
        self.put(&v.to_le_bytes());
    }
    #[inline]
    fn put_u32(&mut self, v: u32) {
        self.put(&v.to_le_bytes());
    }
    #[inline]
    fn put_u64(&mut self, v: u64) {
        self.put(&v.to_le_bytes());
    }
    #[inline]
    fn put_u128(&mut self, v: u128) {
        self.put(&v.to_le_bytes());
    }
    #[inline]
    fn put_i64(&mut self, v: i64) {
        self.put(&v.to_le_bytes());
    }
    #[inline]
    fn put_f32(&mut self, v: f32) {
        self.put(&v.to_bits().to_le_bytes());
    }
    #[inline]
    fn put_f64(&mut self, v: f64) {
        self.put(&v.to_bits().to_le_bytes());
    }
    /// Length (u32) and bytes.
    #[inline]
    fn put_bytes(&mut self, v: &[u8]) {
        self.put_u32(v.len() as u32);
        self.put(v);
    }
    #[inline]
    fn put_str(&mut self, v: &str) {
        self.put_bytes(v.as_bytes());
    }
}

impl Put for Vec<u8> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Reads what [`Put`] wrote. Never panics, never allocates by a length it has not checked.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

macro_rules! fixed {
    ($name:ident, $type:ty) => {
        #[inline]
        pub fn $name(&mut self, what: &'static str) -> Result<$type, Corrupt> {
            Ok(<$type>::from_le_bytes(self.array(what)?))
        }
    };
}

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
    pub fn at(&self) -> usize {
        self.at
    }
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }
    pub fn is_empty(&self) -> bool {
        self.remaining() == 0
    }
    pub fn corrupt(&self, what: &'static str) -> Corrupt {
        Corrupt { what, at: self.at }
    }
    #[inline]
    pub fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], Corrupt> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or(self.corrupt(what))?;
        let taken = &self.bytes[self.at..end];
        self.at = end;
        Ok(taken)
    }
    #[inline]
    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], Corrupt> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N, what)?);
        Ok(out)
    }
    fixed!(u8, u8);
    fixed!(u16, u16);
    fixed!(u32, u32);
    fixed!(u64, u64);
    fixed!(u128, u128);
    fixed!(i64, i64);
    #[inline]
    pub fn f32(&mut self, what: &'static str) -> Result<f32, Corrupt> {
        Ok(f32::from_bits(self.u32(what)?))
    }
    #[inline]
    pub fn f64(&mut self, what: &'static str) -> Result<f64, Corrupt> {
        Ok(f64::from_bits(self.u64(what)?))
    }
    pub fn bytes(&mut self, what: &'static str) -> Result<&'a [u8], Corrupt> {
        let len = self.u32(what)? as usize;
        self.take(len, what)
    }
    pub fn str(&mut self, what: &'static str) -> Result<&'a str, Corrupt> {
        let at = self.at;
        std::str::from_utf8(self.bytes(what)?).map_err(|_| Corrupt { what, at })
    }
    /// A count of things of at least `each` bytes: refused if they cannot be there.
    pub fn count(&mut self, each: usize, what: &'static str) -> Result<usize, Corrupt> {
        let n = self.u32(what)? as usize;
        if n.checked_mul(each.max(1)).is_none_or(|need| need > self.remaining()) {
            return Err(self.corrupt(what));
        }
        Ok(n)
    }
}
