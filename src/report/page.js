// Draws each plot into its element in the colours of the page. Redraws it when the colours or the
// width change.
"use strict";
(() => {
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const height = 260;

  // Formats a number to three digits, or with all digits before the point.
  const figure = (value) => {
    if (value === null || value === undefined) return "–";
    return Math.abs(value) >= 100
      ? Math.round(value).toLocaleString("en")
      : String(Number(value.toPrecision(3)));
  };

  // The axis starts at zero, so that heights can be compared, and has a little room above.
  const fromZero = (_, least, most) => {
    const top = most > 0 ? most * 1.06 : 0;
    const bottom = Math.min(0, least ?? 0);
    return top > bottom ? [bottom, top] : [bottom, bottom + 1];
  };

  const options = (plot, width) => {
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const series = (at) => colour(`--series-${at % 8}`);
    const axis = (label) => ({
      label,
      stroke: colour("--faint"),
      font: "12px system-ui, sans-serif",
      labelFont: "12px system-ui, sans-serif",
      labelSize: 20,
      grid: { stroke: colour("--line"), width: 1 },
      ticks: { stroke: colour("--line"), width: 1 },
      values: (_, at) => at.map((value) => (value == null ? "" : figure(value))),
    });
    // The axis is as wide as its longest figure.
    const lengths = (texts) => (texts ?? []).map((text) => String(text ?? "").length);
    const size = (_, texts) => 20 + 7 * Math.max(2, ...lengths(texts));
    return {
      width,
      height,
      scales: {
        x: { time: false },
        y: plot.log ? { distr: 3, log: 10 } : { range: fromZero },
      },
      axes: [{ ...axis(plot.x_label), size: 30 }, { ...axis(plot.y_label), size }],
      // Plots over the same quantity share a cursor.
      cursor: {
        sync: { key: plot.x_label },
        y: false,
        points: { fill: (_, at) => series(at - 1) },
      },
      series: [
        { label: plot.x_label, value: (_, value) => figure(value) },
        ...plot.series.map(({ name }, at) => ({
          label: name,
          stroke: series(at),
          dash: at < 8 ? undefined : [6, 4],
          width: 2,
          points: { fill: colour("--panel") },
          // uPlot starts a line a pixel before its first point after a gap. That end of the gap is
          // cut; the other stays, because the values after a stall matter.
          gaps: (_chart, _series, _first, _last, gaps) => gaps.map(([from, to]) => [from - 1, to]),
          value: (_, value) => figure(value),
        })),
      ],
    };
  };

  const places = Array.from(document.querySelectorAll(".plot"));
  let drawn = [];
  const draw = () => {
    drawn.forEach((chart) => chart.destroy());
    drawn = places.map((place, at) => {
      const plot = plots[at];
      const data = [plot.x, ...plot.series.map((series) => series.values)];
      return new uPlot(options(plot, place.clientWidth), data, place);
    });
  };
  draw();

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const observer = new ResizeObserver(() => {
    places.forEach((place, at) => {
      const width = place.clientWidth;
      if (drawn[at].width !== width) drawn[at].setSize({ width, height });
    });
  });
  places.forEach((place) => observer.observe(place));
})();
