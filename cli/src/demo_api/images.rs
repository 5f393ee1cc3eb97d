//! The demo API's images, drawn from the hash of the call: nothing has to be stored, and every run shows the same images.

const SIDE: u16 = 256;
/// Palette entries 0 to 239 are the background from top to bottom; the others are single colours.
const SHADES: u8 = 240;
const SHAPE: u8 = 240;
const LABEL: u8 = 241;
const INK: u8 = 242;

/// Digits of 3 × 5 cells, one row per three bits, the top row highest.
const DIGITS: [u16; 10] = [
    0b111_101_101_101_111,
    0b010_110_010_010_111,
    0b111_001_111_100_111,
    0b111_001_111_001_111,
    0b101_101_111_001_001,
    0b111_100_111_001_111,
    0b111_100_111_101_111,
    0b111_001_001_010_010,
    0b111_101_111_101_111,
    0b111_101_111_001_111,
];
const CELL: i32 = 12;

/// A PNG of 256 × 256: a gradient and a disc whose colours, position and size depend on `hash`, and the variant's number.
pub(super) fn png(hash: u64, variant: u32) -> Result<Vec<u8>, png::EncodingError> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIDE.into(), SIDE.into());
    // One byte per pixel, quick to draw and, unfiltered, small: ten thousand rows need forty thousand images.
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_palette(palette(hash, variant));
    encoder.set_compression(png::Compression::Balanced);
    encoder.set_filter(png::Filter::NoFilter);
    let mut writer = encoder.write_header()?;
    writer.write_image_data(&pixels(hash, variant))?;
    writer.finish()?;
    Ok(file)
}

fn palette(hash: u64, variant: u32) -> Vec<u8> {
    let [r, g, b, r2, g2, b2, ..] = hash.to_be_bytes();
    // The variants of one call look similar and can still be distinguished at a glance.
    let turned = |colour: [u8; 3]| {
        let mut colour = colour;
        colour.rotate_left(variant as usize % 3);
        colour
    };
    let (top, bottom) = (turned([r, g, b]).map(|c| c / 2 + 128), turned([r2, g2, b2]).map(|c| c / 2 + 64));
    let mix = |from: u8, to: u8, step: u8| {
        let (from, to, step, steps) = (u32::from(from), u32::from(to), u32::from(step), u32::from(SHADES));
        ((from * (steps - step) + to * step) / steps) as u8
    };
    let mut colours: Vec<u8> =
        (0..SHADES).flat_map(|step| [0, 1, 2].map(|i: usize| mix(top[i], bottom[i], step))).collect();
    colours.extend(bottom.map(|c| 255 - c));
    colours.extend([255, 255, 255]);
    colours.extend([32, 32, 32]);
    colours
}

fn pixels(hash: u64, variant: u32) -> Vec<u8> {
    let [.., x, y, size] = hash.to_be_bytes().map(i32::from);
    let (centre_x, centre_y, radius) = (80 + x % 96, 80 + y % 96, 48 + size % 32);
    let digits: Vec<u16> = variant
        .to_string()
        .bytes()
        .filter_map(|digit| DIGITS.get(usize::from(digit.wrapping_sub(b'0'))).copied())
        .collect();
    let side = i32::from(SIDE);
    let (label_width, label_height) = ((digits.len() as i32 * 4 + 1) * CELL, 7 * CELL);
    let (left, top) = (side - label_width, side - label_height);

    let at = |x: i32, y: i32| -> u8 {
        if x >= left && y >= top {
            let (column, row) = ((x - left) / CELL - 1, (y - top) / CELL - 1);
            let inked = column >= 0
                && column % 4 < 3
                && (0..5).contains(&row)
                && digits
                    .get((column / 4) as usize)
                    .is_some_and(|digit| digit >> (14 - (row * 3 + column % 4)) & 1 == 1);
            return if inked { INK } else { LABEL };
        }
        if (x - centre_x).pow(2) + (y - centre_y).pow(2) < radius.pow(2) {
            return SHAPE;
        }
        (y * i32::from(SHADES) / side) as u8
    };
    (0..side).flat_map(|y| (0..side).map(move |x| (x, y))).map(|(x, y)| at(x, y)).collect()
}
