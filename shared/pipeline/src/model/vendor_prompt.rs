//! The words that every prompt of the vendor has. The catalog writes them, and the contact sheet leaves them out.

/// The beginning of the vendor's prompt.
pub(crate) const OPENING: &str = "E-commerce hero product photo of ";
/// The end of the vendor's prompt.
pub(crate) const CLOSING: &str = "Photorealistic, centered composition, clean edges, no watermark, no extra text.";
