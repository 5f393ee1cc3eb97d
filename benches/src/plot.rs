//! Draws lines over time as an SVG: panels below each other with a common time axis, one colour per name.

use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 220.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 85.0;
const BETWEEN: f64 = 50.0;
const BOTTOM: f64 = 50.0;
/// The palette of Okabe and Ito, which colour-blind readers can tell apart too.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#56b4e9"];
/// The most points of a line; more would be narrower than a pixel.
const POINTS: usize = 450;

pub(crate) struct Panel {
    /// Includes the unit.
    pub(crate) title: &'static str,
    pub(crate) lines: Vec<Line>,
}

pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Returns the SVG's text. The lines' names are above the first panel; `time` is the label of the time axis.
pub(crate) fn svg(title: &str, time: &str, panels: &[Panel]) -> String {
    let height = TOP + panels.len() as f64 * (PANEL + BETWEEN) - BETWEEN + BOTTOM;
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n<title>{title}</title>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{title}</text>\n"
    );
    let names = panels.first().map_or(&[][..], |panel| &panel.lines);
    for (index, (line, colour)) in names.iter().zip(COLOURS.iter().cycle()).enumerate() {
        let x = LEFT + 110.0 * index as f64;
        let _ = writeln!(
            text,
            "<path d=\"M{x} 41h18\" stroke=\"{colour}\" stroke-width=\"3\"/><text x=\"{}\" y=\"45\">{}</text>",
            x + 23.0,
            line.name
        );
    }
    let end = maximum(panels.iter(), |point| point.0);
    for (index, panel) in panels.iter().enumerate() {
        let top = TOP + index as f64 * (PANEL + BETWEEN);
        draw(&mut text, panel, top, end);
    }
    let _ = writeln!(
        text,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{time}</text>\n</svg>",
        LEFT + (WIDTH - LEFT - RIGHT) / 2.0,
        height - 12.0
    );
    text
}

fn draw(text: &mut String, panel: &Panel, top: f64, end: f64) {
    let bottom = top + PANEL;
    let (step_x, step_y) = (step(end), step(maximum([panel].into_iter(), |point| point.1)));
    let high = (maximum([panel].into_iter(), |point| point.1) / step_y).ceil().max(1.0) * step_y;
    let x = |second: f64| LEFT + second / end * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| bottom - value / high * PANEL;
    let _ = writeln!(text, "<text x=\"{LEFT}\" y=\"{}\">{}</text>", top - 10.0, panel.title);
    for value in (0..).map(|n| f64::from(n) * step_y).take_while(|value| *value <= high * 1.001) {
        let at = y(value);
        let _ = writeln!(
            text,
            "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            at + 4.0,
            number(value)
        );
    }
    for second in (0..).map(|n| f64::from(n) * step_x).take_while(|second| *second <= end) {
        let at = x(second);
        let _ = writeln!(
            text,
            "<path d=\"M{at:.1} {bottom}v5\" stroke=\"#222\"/><text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            bottom + 18.0,
            number(second)
        );
    }
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> =
            thin(&line.points).into_iter().map(|(second, value)| format!("{:.1},{:.1}", x(second), y(value))).collect();
        let _ = writeln!(
            text,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>",
            points.join(" ")
        );
    }
}

fn maximum<'a>(panels: impl Iterator<Item = &'a Panel>, of: impl Fn(&(f64, f64)) -> f64) -> f64 {
    let points = panels.flat_map(|panel| &panel.lines).flat_map(|line| &line.points);
    points.map(of).fold(0.0, f64::max).max(f64::MIN_POSITIVE)
}

/// Distance of the ticks: 1, 2 or 5 times a power of ten, so that there are four to ten ticks.
fn step(maximum: f64) -> f64 {
    let power = 10_f64.powf((maximum / 4.0).log10().floor());
    [5.0, 2.0, 1.0].map(|times| times * power).into_iter().find(|step| maximum / step >= 4.0).unwrap_or(power)
}

fn number(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Reduces a line to at most [`POINTS`]. Of neighbours the highest is kept, so that peaks stay visible.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let per_point = points.len().div_ceil(POINTS).max(1);
    points
        .chunks(per_point)
        .filter_map(|neighbours| neighbours.iter().copied().max_by(|a, b| a.1.total_cmp(&b.1)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!([7.0, 10.0, 79.0, 199.0, 200.0, 1.7].map(step), [1.0, 2.0, 10.0, 20.0, 50.0, 0.2]);
        assert_eq!([0.0, 0.5, 20.0, 100.0].map(number), ["0", "0.5", "20", "100"]);
    }

    #[test]
    fn a_peak_survives_thinning() {
        let mut points: Vec<_> = (0..10_000).map(|second| (f64::from(second), 1.0)).collect();
        points[4_711].1 = 9.0;
        let thin = thin(&points);
        assert!(thin.len() <= POINTS && thin.contains(&(4_711.0, 9.0)), "{}", thin.len());
    }
}
