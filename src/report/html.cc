#include "report/html.h"

#include <fmt/format.h>

#include "report/figure.h"

namespace temper::report {
namespace {

constexpr const char* kStyle = R"css(
:root { color-scheme: light dark; --ink: #1c2430; --faint: #5d6a7a; --page: #f6f7f9; --card: #ffffff; --line: #dfe3e8;
  --good: #1d7a46; --warn: #a85a00; --busy: #1c62b9; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e8ee; --faint: #9aa7b8; --page: #12161c; --card: #1a2029;
  --line: #313b48; --good: #5cc98c; --warn: #f0a24c; --busy: #6fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 26px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 18px; margin: 32px 0 10px; }
h3 { font-size: 15px; margin: 14px 0 6px; }
p { margin: 4px 0; overflow-wrap: anywhere; }
.said { margin: 0 0 10px; white-space: pre-wrap; }
.faint { color: var(--faint); }
.status { font-weight: 600; padding: 1px 10px; border-radius: 12px; border: 1.5px solid; white-space: nowrap; }
.running { color: var(--busy); } .finished { color: var(--good); } .interrupted { color: var(--warn); }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(170px, 1fr)); gap: 10px; margin-top: 18px; }
.tile, .card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 10px 12px;
  min-width: 0; }
.tile b { display: block; font-size: 18px; font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
.tile span { color: var(--faint); font-size: 13px; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(420px, 100%), 1fr)); gap: 12px; }
.chart { display: block; width: 100%; height: auto; }
.chart text { fill: var(--ink); }
.chart [color="black"] { color: var(--ink); }
.chart [stroke="rgb(221, 221, 221)"] { stroke: var(--line); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; font-variant-numeric: tabular-nums; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: 4px 14px 4px 0; border-bottom: 1px solid var(--line); }
th { font-weight: 600; }
td { white-space: pre-wrap; overflow-wrap: break-word; }
table.names td { overflow-wrap: anywhere; min-width: 70px; }
table.names th { width: 260px; max-width: 45vw; font-weight: 400; color: var(--faint); overflow-wrap: anywhere; }
tr:last-child > * { border-bottom: 0; }
.bar { display: flex; height: 26px; border-radius: 6px; overflow: hidden; margin-bottom: 8px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: 14px; }
.legend i { display: inline-block; width: 11px; height: 11px; border-radius: 3px; margin-right: 6px; }
summary { cursor: pointer; color: var(--faint); margin: 10px 0 6px; }
)css";

}  // namespace

std::string escape(const std::string& text) {
  std::string out;
  for (const char c : printable(text, text.size() + 1, /*keep_lines=*/true)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string definition_table(const std::vector<Row>& rows) {
  std::string out = "<div class=\"card scroll\"><table class=\"names\">";
  for (const Row& row : rows)
    out += fmt::format("<tr><th scope=\"row\">{}</th><td>{}</td></tr>\n", escape(row.name), escape(row.value));
  return out + "</table></div>\n";
}

std::string table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows) {
  std::string out = "<div class=\"card scroll\"><table><thead><tr>";
  for (const std::string& name : head) out += fmt::format("<th scope=\"col\">{}</th>", escape(name));
  out += "</tr></thead><tbody>\n";
  for (const auto& row : rows) {
    out += "<tr>";
    for (const std::string& cell : row) out += fmt::format("<td>{}</td>", escape(cell));
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string section(const std::string& title, const std::string& html) {
  return fmt::format("<section><h2>{}</h2>\n{}</section>\n", escape(title), html);
}

std::string page(const std::string& title, const std::string& html) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n"
      "<title>{}</title>\n<style>{}</style></head>\n<body><main>\n{}</main></body></html>\n",
      escape(title), kStyle, html);
}

}  // namespace temper::report
