//! The plot of the results: SVG for light and dark pages.
//!
//! Each scenario has a band, each proxy a line in it from p50 to p99 on a logarithmic axis, with a circle
//! at the p99. If more than 0.1 % of the requests failed, the circle is hollow and the label includes the
//! share of failed requests.

use std::fmt::Write;

use crate::report::{Results, milliseconds, percentage};

const LEFT: f64 = 210.0;
const RIGHT: f64 = 820.0;
const TOP: f64 = 78.0;
const LINE: f64 = 12.0;
const GAP: f64 = 14.0;
/// The ends of the axis, in microseconds.
const AXIS: (f64, f64) = (1e3, 1e7);

// Colours: l7lb stands out, and the variants of one proxy are similar.
const L7LB: [&str; 4] = ["#e4572e", "#f2a541", "#b23a48", "#f4845f"];
const NGINX: [&str; 4] = ["#2a9d5c", "#7fc97f", "#1b6b3f", "#a3d9a5"];
const HAPROXY: [&str; 4] = ["#3a6ea5", "#8ab6e8", "#274b73", "#b9d3f0"];

const STYLE: &str = "<style>
svg { font: 11px system-ui, sans-serif; background: #fff }
text { fill: #222 } .faint { fill: #666 } .grid { stroke: #ddd } .band { fill: #f6f6f6 } .hollow { fill: #fff }
@media (prefers-color-scheme: dark) {
  svg { background: #14171a }
  text { fill: #e6e6e6 } .faint { fill: #999 } .grid { stroke: #333 } .band { fill: #1c2024 } .hollow { fill: #14171a }
}
</style>";

/// The complete SVG document.
pub(crate) fn svg(results: &Results, title: &str) -> String {
    let (proxies, scenarios) = (results.proxies(), results.scenarios());
    let band = count(proxies.len()) * LINE + GAP;
    let height = TOP + count(scenarios.len()) * band + 34.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 {height}\" width=\"960\" height=\"{height}\" role=\"img\" aria-label=\"{title}\">\n{STYLE}\n<text x=\"16\" y=\"24\" font-size=\"15\" font-weight=\"600\">{title}</text>\n"
    );
    legend(&mut svg, &proxies);
    for (number, scenario) in scenarios.iter().enumerate() {
        let top = TOP + count(number) * band;
        if number % 2 == 0 {
            writeln!(svg, "<rect class=\"band\" x=\"0\" y=\"{top}\" width=\"960\" height=\"{band}\"/>").ok();
        }
        writeln!(svg, "<text x=\"16\" y=\"{}\" font-weight=\"600\">{scenario}</text>", top + band / 2.0 + 4.0).ok();
    }
    axis(&mut svg, height - 30.0);
    for (number, scenario) in scenarios.iter().enumerate() {
        for (place, proxy) in proxies.iter().enumerate() {
            let y = TOP + count(number) * band + GAP / 2.0 + (count(place) + 0.5) * LINE;
            if let Some(summary) = results.find(proxy, scenario) {
                let (from, to, color) = (x(summary.p50), x(summary.p99), color(&proxies, proxy));
                let failing = summary.errors * 1000 > summary.requests;
                let class = if failing { "class=\"hollow\"".to_owned() } else { format!("fill=\"{color}\"") };
                let mut note = milliseconds(summary.p99);
                if failing {
                    write!(note, " · {} failed", percentage(summary)).ok();
                }
                writeln!(
                    svg,
                    "<g><title>{proxy}, {scenario}: {note}</title><path d=\"M{from:.1} {y}H{to:.1}\" stroke=\"{color}\" stroke-width=\"3\"/><circle cx=\"{to:.1}\" cy=\"{y}\" r=\"4\" {class} stroke=\"{color}\" stroke-width=\"2\"/><text class=\"faint\" font-size=\"9\" x=\"{:.1}\" y=\"{:.1}\">{note}</text></g>",
                    to + 8.0,
                    y + 3.0
                )
                .ok();
            }
        }
    }
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, proxies: &[&str]) {
    let mut x = 16.0;
    let mut y = 44.0;
    for proxy in proxies {
        let width = 24.0 + 6.4 * count(proxy.chars().count());
        if x + width > 950.0 {
            (x, y) = (16.0, y + 16.0);
        }
        let color = color(proxies, proxy);
        writeln!(svg, "<circle cx=\"{}\" cy=\"{}\" r=\"4\" fill=\"{color}\"/>", x + 4.0, y - 4.0).ok();
        writeln!(svg, "<text x=\"{}\" y=\"{y}\">{proxy}</text>", x + 13.0).ok();
        x += width;
    }
}

/// The grid lines at 1, 10, 100 ms and so on, with labels, and the key below the axis.
fn axis(svg: &mut String, bottom: f64) {
    for (microseconds, label) in
        [(1_000, "1 ms"), (10_000, "10 ms"), (100_000, "100 ms"), (1_000_000, "1 s"), (10_000_000, "10 s")]
    {
        let x = x(microseconds);
        writeln!(svg, "<path class=\"grid\" d=\"M{x:.1} {TOP}V{bottom}\"/>").ok();
        writeln!(
            svg,
            "<text class=\"faint\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{}\">{label}</text>",
            bottom + 14.0
        )
        .ok();
    }
    let y = bottom + 26.0;
    writeln!(
        svg,
        "<text class=\"faint\" x=\"16\" y=\"{y}\">lines from p50 to p99; hollow: more than 0.1 % failed</text>"
    )
    .ok();
}

/// The horizontal position of a time.
#[expect(clippy::cast_precision_loss, reason = "a time below 2^52 µs")]
fn x(microseconds: u64) -> f64 {
    let time = (microseconds as f64).clamp(AXIS.0, AXIS.1);
    LEFT + (time / AXIS.0).ln() / (AXIS.1 / AXIS.0).ln() * (RIGHT - LEFT)
}

#[expect(clippy::cast_precision_loss, reason = "a few dozen at most")]
fn count(number: usize) -> f64 {
    number as f64
}

/// The colour of a proxy: by its family and its position in the family.
fn color(proxies: &[&str], proxy: &str) -> &'static str {
    let family = |name: &str| name.split(' ').next().unwrap_or_default().to_owned();
    let before = proxies.iter().take_while(|other| **other != proxy);
    let place = before.filter(|other| family(other) == family(proxy)).count();
    let colors = match family(proxy).as_str() {
        "l7lb" => L7LB,
        "nginx" => NGINX,
        _ => HAPROXY,
    };
    colors.get(place % colors.len()).copied().unwrap_or("#888")
}
