//! A line that others write, as much of it as a log can bear.

/// A line as far as it has been read.
#[derive(Debug)]
pub struct Bounded {
    longest: usize,
    kept: Vec<u8>,
    left_out: usize,
}

impl Bounded {
    /// Keeps so many bytes of each line; of what is longer it is said how much longer it is.
    #[must_use]
    pub fn new(longest: usize) -> Self {
        Self { longest, kept: Vec::new(), left_out: 0 }
    }

    /// Takes more of the line.
    pub fn add(&mut self, bytes: &[u8]) {
        let room = bytes.len().min(self.longest - self.kept.len());
        self.kept.extend_from_slice(&bytes[..room]);
        self.left_out += bytes.len() - room;
    }

    /// Whether nothing was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// The line as text, whatever it was; the next one begins.
    pub fn take(&mut self) -> String {
        let mut text = String::from_utf8_lossy(&self.kept).into_owned();
        if self.left_out > 0 {
            text.push_str(&format!("… ({} bytes more)", self.left_out));
        }
        self.kept.clear();
        self.left_out = 0;
        text
    }
}
