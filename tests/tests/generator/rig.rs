//! Ports in memory.

use packshot_pipeline::request::Request;

/// The request of a product.
pub(crate) fn request(product: &str) -> Request {
    Request {
        model: "gpt-image-1".into(),
        prompt: format!("A photo of {product}"),
        image_url: format!("https://shop.test/{product}.png"),
        size: "1024x1024".into(),
        quality: "high".into(),
        n: 2,
        background: None,
        revision: None,
    }
}
