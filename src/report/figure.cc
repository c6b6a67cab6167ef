#include "report/figure.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "report/child.h"

namespace temper::report {
namespace {

// Distinguishable for most colour-blind readers, and readable on white and on black.
constexpr std::array<const char*, 8> kPalette = {"2f7ed8", "e07b29", "2e9e5b", "a45bd6",
                                                 "d64545", "1a9e9e", "a0703c", "7f7f7f"};

// The quotes that gnuplot knows become their typographic likes, so that no rule of escaping has to be right.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : printable(text)) out += c == '\'' ? "\u2019" : c == '`' ? "\u2018" : std::string(1, c);
  return out + "'";
}

// Bytes of the UTF-8 character that a non-empty text begins with; 0 if it is none.
size_t character_length(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  const size_t length = lead < 0xc2 ? 0 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : lead < 0xf5 ? 4 : 0;
  if (length > text.size()) return 0;
  for (size_t k = 1; k < length; ++k) {
    if ((static_cast<unsigned char>(text[k]) & 0xc0) != 0x80) return 0;
  }
  return length;
}

std::string style_of(const Curve& curve) {
  const size_t color = static_cast<size_t>(curve.color) % kPalette.size();
  const bool again = static_cast<size_t>(curve.color) >= kPalette.size();
  const std::string rgb = kPalette[color];
  switch (curve.style) {
    case CurveStyle::kFaint:
      return fmt::format("with lines lw 1 lc rgb '#b0{}'", rgb);  // first byte: transparency
    case CurveStyle::kDots:
      return fmt::format("with linespoints lw 1 dt 2 pt 7 ps 0.7 lc rgb '#{}'", rgb);
    case CurveStyle::kLine:
      break;
  }
  return fmt::format("with lines lw 2 dt {} lc rgb '#{}'", again ? 2 : 1, rgb);
}

// Within a few decades gnuplot marks powers of ten only; mark 1, 2, 5 times these as well.
std::string log_ticks(double low, double high) {
  if (high / low > 1e4) return "set ytics autofreq\n";
  std::string marks;
  for (double power = std::pow(10, std::floor(std::log10(low))); power <= high; power *= 10) {
    for (const int digit : {1, 2, 5}) marks += fmt::format("{}{:.6g}", marks.empty() ? "" : ", ", digit * power);
  }
  return fmt::format("set ytics ({})\n", marks);
}

std::string axes(const Panel& panel) {
  double low = INFINITY, high = -INFINITY;
  for (const Curve& curve : panel.curves) {
    for (const auto& [x, y] : curve.points) low = std::min(low, y), high = std::max(high, y);
  }
  std::string out = fmt::format("set title {}\nset xlabel {}\n", quoted(panel.title), quoted(panel.x_title));
  if (panel.log_y) {
    out += fmt::format("set logscale y\nset yrange [{}:{}]\n", 0.9 * low, 1.1 * high) + log_ticks(low, high);
  } else {
    out += fmt::format("unset logscale y\nset ytics autofreq\nset yrange [{}:*]\n", panel.from_zero ? "0" : "*");
  }
  // gnuplot refuses to choose a range around one value.
  if (low == high)
    out += fmt::format("set yrange [{}:{}]\n", low > 0 ? 0.5 * low : low - 1, low > 0 ? 2 * low : low + 1);
  return out;
}

// The corner on the right that the curves leave free; beside the panel where the legend is long.
std::string legend_place(const Panel& panel, int panel_height) {
  const int64_t most_inside = panel_height / 50;  // lines of 20 pixels on two fifths of the height
  const auto is_titled = [](const Curve& curve) { return !curve.title.empty(); };
  if (std::count_if(panel.curves.begin(), panel.curves.end(), is_titled) > most_inside)
    return "set key outside right top\nset rmargin\n";  // as wide as the legend
  double low = INFINITY, high = -INFINITY, end = 0;
  for (const Curve& curve : panel.curves) {
    for (const auto& [x, y] : curve.points) low = std::min(low, y), high = std::max(high, y);
    if (!curve.points.empty()) end += curve.points.back().second / static_cast<double>(panel.curves.size());
  }
  return end - low > high - end ? "set key inside right bottom\nset rmargin 3\n"
                                : "set key inside right top\nset rmargin 3\n";
}

std::string plot_command(const Panel& panel, size_t panel_index, int panel_height) {
  std::string data, plot;
  for (size_t i = 0; i < panel.curves.size(); ++i) {
    const Curve& curve = panel.curves[i];
    const std::string block = fmt::format("$curve_{}_{}", panel_index, i);
    data += block + " << END\n";
    for (const auto& [x, y] : curve.points) data += fmt::format("{:.9g} {:.9g}\n", x, y);
    data += "END\n";
    plot += fmt::format("{}{} using 1:2 {} {}", plot.empty() ? "plot " : ", ", block, style_of(curve),
                        curve.title.empty() ? "notitle" : "title " + quoted(curve.title));
  }
  return data + axes(panel) + legend_place(panel, panel_height) + plot + "\n";
}

}  // namespace

std::string gnuplot_script(const Figure& figure, ImageFormat format) {
  const int num_panels = static_cast<int>(figure.panels.size());
  const int num_columns = std::clamp(figure.num_columns, 1, std::max(num_panels, 1));
  const int num_rows = (num_panels + num_columns - 1) / num_columns;
  const int width = num_columns * figure.panel_width, height = num_rows * figure.panel_height;
  const char* background = figure.is_transparent ? "" : "background rgb 'white'";
  std::string script = format == ImageFormat::kSvg
                           ? fmt::format(
                                 "set terminal svg size {},{} dynamic noenhanced font 'sans-serif,12' "
                                 "{}\n",
                                 width, height, background)
                           : fmt::format("set terminal pngcairo size {},{} noenhanced font 'sans,11'\n", width, height);
  script +=
      "set encoding utf8\n"
      "set border 3 lc rgb '#808080'\n"
      "set tics nomirror out scale 0.5 textcolor rgb 'black'\n"
      "set grid back lt 1 lw 0.5 lc rgb '#dddddd'\n"
      "set key samplen 2 spacing 1.1\n"
      "set format y '%.6g'\nset format x '%.6g'\n"
      "set autoscale xfix\nset xrange [0:*]\n";
  script += fmt::format("set multiplot layout {},{}\n", std::max(num_rows, 1), num_columns);
  for (size_t i = 0; i < figure.panels.size(); ++i) script += plot_command(figure.panels[i], i, figure.panel_height);
  return script + "unset multiplot\n";
}

std::string draw(const Figure& figure, ImageFormat format) {
  return run_child({"gnuplot", "-d", "-"}, gnuplot_script(figure, format), "drawing", "gnuplot-nox");
}

std::string printable(const std::string& text, size_t max_bytes, bool keep_lines) {
  std::string out;
  for (size_t i = 0; i < text.size() && out.size() < max_bytes;) {
    const size_t length = character_length(std::string_view(text).substr(i));
    const char first = text[i];
    const bool is_line_end = keep_lines && (first == '\n' || first == '\t');
    const bool is_control = (first >= 0 && first < 0x20) || first == 0x7f;
    if (length == 0 || (is_control && !is_line_end)) {
      out += '?';
    } else {
      out += text.substr(i, length);
    }
    i += std::max<size_t>(length, 1);
  }
  return out.size() < max_bytes ? out : out + "...";
}

}  // namespace temper::report
