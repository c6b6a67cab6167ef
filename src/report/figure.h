// A picture of curves, and its drawing through gnuplot.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace temper::report {

enum class CurveStyle {
  kLine,
  kFaint,  // what kLine smooths
  kDots,   // few points, joined
};

struct Curve {
  std::string title;  // in the legend; empty: not there. Any text, it is never interpreted
  int color = 0;      // index into a palette
  CurveStyle style = CurveStyle::kLine;
  std::vector<std::pair<double, double>> points;
};

struct Panel {
  std::string title, x_title;
  bool log_y = false;      // all points are positive
  bool from_zero = false;  // the y axis begins at 0
  std::vector<Curve> curves;
};

enum class ImageFormat { kSvg, kPng };

struct Figure {
  int num_columns = 2;
  int panel_width = 600, panel_height = 380;  // pixels
  bool is_transparent = false;                // an SVG for a page that has its own background
  std::vector<Panel> panels;                  // row by row
};

// The commands that make gnuplot write the picture to its standard output. Data stand in the commands, titles in quotes
// that nothing can leave, and no file is named.
std::string gnuplot_script(const Figure& figure, ImageFormat format);

// The bytes of the picture. Runs gnuplot as a child, without a shell and without the user's settings. Throws kNotFound
// where it is not installed, kIo with gnuplot's words where it fails.
std::string draw(const Figure& figure, ImageFormat format);

// Text that may stand in a picture or a page: invalid UTF-8 and control characters (but line ends and tabs, if they are
// kept) become "?", text of max_bytes or more is cut.
std::string printable(const std::string& text, size_t max_bytes = 80, bool keep_lines = false);

}  // namespace temper::report
