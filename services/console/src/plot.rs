//! Plots as SVG, whose colours are the style sheet's: light, dark, or whatever it says.
//!
//! plotters writes colours as attributes and knows no classes. So each role is drawn in a colour that nothing else has,
//! and the attribute is exchanged for a class afterwards.

use crate::clock;
use crate::words::number;
use maud::{Markup, PreEscaped, html};
use plotters::prelude::*;
use tidegate_proto::v1;

/// What is drawn how: the colour that stands for it, and its class.
const AXIS: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const VALUE: RGBColor = RGBColor(3, 3, 3);
const AREA: RGBColor = RGBColor(4, 4, 4);
const LIMITS: [(&str, RGBColor); 4] = [
    ("lock", RGBColor(5, 5, 5)),
    ("throttle", RGBColor(6, 6, 6)),
    ("notify", RGBColor(7, 7, 7)),
    ("observe", RGBColor(8, 8, 8)),
];
const CLASSES: [(&str, &str); 8] = [
    ("#010101", "axis"),
    ("#020202", "grid"),
    ("#030303", "value"),
    ("#040404", "area"),
    ("#050505", "limit-lock"),
    ("#060606", "limit-throttle"),
    ("#070707", "limit-notify"),
    ("#080808", "limit-observe"),
];

const WIDE: (u32, u32) = (480, 220);
const SMALL: (u32, u32) = (400, 170);

type Drawing<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

/// A bar for each day. `label` says what it shows.
pub(crate) fn days(label: &str, days: &[v1::DayCount]) -> Markup {
    let most = days.iter().map(|day| day.count).max().unwrap_or_default();
    let mut svg = String::new();
    let drawn = draw(&mut svg, WIDE, |area| {
        // No line between whole numbers.
        let top = most.max(4);
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(48)
            .build_cartesian_2d(0..days.len().max(1), 0..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(4)
            .x_labels(6)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS)
            .label_style(("sans-serif", 16, &AXIS))
            .x_label_formatter(&|index| days.get(*index).map_or_else(String::new, |day| clock::day(day.day_ms)))
            .draw()?;
        chart.draw_series(days.iter().enumerate().filter(|(_, day)| day.count > 0).map(|(index, day)| {
            let mut bar = Rectangle::new([(index, 0), (index + 1, day.count)], VALUE.filled());
            bar.set_margin(0, 0, 3, 3);
            bar
        }))?;
        Ok(())
    });
    figure(label, drawn, &svg)
}

/// A column's past, with the limits that it is compared with. `label` says what it shows.
pub(crate) fn series(label: &str, points: &[v1::StatisticPoint], limits: &[&v1::LimitInForce]) -> Markup {
    let known = || points.iter().filter(|point| point.value.is_finite());
    let highest = known().map(|point| point.value).fold(0.0, f64::max);
    let lowest = known().map(|point| point.value).fold(0.0, f64::min);
    // A limit far away would press the values flat onto the axis.
    let seen = |limit: f64| limit.is_finite() && limit >= lowest && limit <= highest.max(1.0) * 20.0;
    let top = limits.iter().map(|limit| limit.limit).filter(|limit| seen(*limit)).fold(highest, f64::max);
    let top = if top > lowest { lowest + (top - lowest) * 1.08 } else { lowest + 1.0 };
    let (from, until) = (points.first().map_or(0, |p| p.at_ms), points.last().map_or(1, |p| p.at_ms));
    let mut svg = String::new();
    let drawn = draw(&mut svg, SMALL, |area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(24)
            .y_label_area_size(52)
            .build_cartesian_2d(from..until.max(from + 1), lowest..top)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .y_labels(4)
            .x_labels(5)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .axis_style(AXIS)
            .label_style(("sans-serif", 16, &AXIS))
            .x_label_formatter(&|at_ms| clock::minute(*at_ms))
            .y_label_formatter(&|value| number(*value))
            .draw()?;
        // A value that is not known leaves a gap.
        for run in points.split(|point| !point.value.is_finite()).filter(|run| !run.is_empty()) {
            let line = || run.iter().map(|point| (point.at_ms, point.value));
            chart.draw_series(AreaSeries::new(line(), 0.0, AREA))?;
            chart.draw_series(LineSeries::new(line(), VALUE.stroke_width(2)))?;
        }
        for limit in limits.iter().filter(|limit| seen(limit.limit)) {
            let color = LIMITS.iter().find(|(action, _)| *action == limit.action).map_or(LIMITS[3].1, |(_, c)| *c);
            let ends = [(from, limit.limit), (until, limit.limit)];
            chart.draw_series(LineSeries::new(ends, color.stroke_width(2)))?;
        }
        Ok(())
    });
    figure(label, drawn, &svg)
}

fn draw(svg: &mut String, size: (u32, u32), on: impl FnOnce(&Drawing<'_>) -> Drawn) -> Drawn {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    on(&area)?;
    area.present()
}

/// The drawing with classes for colours, as large as there is room.
fn figure(label: &str, drawn: Drawn, svg: &str) -> Markup {
    if let Err(error) = drawn {
        tracing::warn!(error = error.to_string(), "a plot could not be drawn");
        return html! { p.hint { "The plot could not be drawn." } };
    }
    let Some((_, inside)) = svg.split_once("<svg").and_then(|(_, svg)| svg.split_once('>')) else {
        return html! { p.hint { "The plot could not be drawn." } };
    };
    let size = svg.split("viewBox=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("0 0 1 1");
    let mut inside = inside.rsplit_once("</svg>").map_or(inside, |(inside, _)| inside).to_owned();
    for (color, class) in CLASSES {
        inside = inside.replace(&format!("fill=\"{color}\""), &format!("class=\"fill-{class}\""));
        inside = inside.replace(&format!("stroke=\"{color}\""), &format!("class=\"stroke-{class}\""));
    }
    html! {
        svg.plot viewBox=(size) role="img" aria-label=(label) preserveAspectRatio="xMidYMid meet" {
            // plotters' own, of numbers and times only.
            (PreEscaped(inside))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(at_ms: i64, value: f64) -> v1::StatisticPoint {
        v1::StatisticPoint { at_ms, value }
    }

    #[test]
    fn a_plots_colours_are_classes_and_it_has_no_style_of_its_own() {
        let limit = v1::LimitInForce { action: "lock".into(), limit: 20.0, ..v1::LimitInForce::default() };
        let points = [point(0, 1.0), point(60_000, f64::NAN), point(120_000, 4.0), point(180_000, 9.0)];
        let svg = series("recipients <b>", &points, &[&limit]).into_string();
        for class in ["stroke-axis", "stroke-grid", "stroke-value", "fill-area", "stroke-limit-lock", "fill-axis"] {
            assert!(svg.contains(&format!("class=\"{class}\"")), "{class} in {svg}");
        }
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && svg.matches("<svg").count() == 1, "{svg}");
        assert!(svg.contains("aria-label=\"recipients &lt;b&gt;\""));
        assert!(!svg.contains("style=") && !svg.contains("#0"), "{svg}");
    }

    #[test]
    fn nothing_known_is_drawn_too() {
        for points in [&[][..], &[point(5, f64::NAN)], &[point(5, 0.0)], &[point(5, f64::INFINITY), point(5, 1e300)]] {
            assert!(series("x", points, &[]).into_string().contains("<svg"), "{points:?}");
        }
        assert!(days("x", &[]).into_string().contains("<svg"));
        let day = v1::DayCount { day_ms: 0, count: u64::from(u32::MAX) };
        assert!(days("x", &[day]).into_string().contains("fill-value"));
    }

    #[test]
    fn a_limit_far_away_does_not_press_the_values_flat() {
        let limit = v1::LimitInForce { action: "lock".into(), limit: 1e9, ..v1::LimitInForce::default() };
        let svg = series("x", &[point(0, 1.0), point(60_000, 5.0)], &[&limit]).into_string();
        assert!(!svg.contains("limit-lock"), "{svg}");
    }
}
