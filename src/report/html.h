// Pieces of an HTML page. Every function escapes the text that it is given; only what is named html goes in as it is.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace temper::report {

// For text between tags and within quoted attributes: & < > " ' become references; invalid UTF-8 and control
// characters but line ends "?".
std::string escape(const std::string& text);

struct Row {
  std::string name;
  std::string value;
};

// Two columns, names and values.
std::string definition_table(const std::vector<Row>& rows);

// A table with a head; every row as long as the head.
std::string table(const std::vector<std::string>& head, const std::vector<std::vector<std::string>>& rows);

std::string section(const std::string& title, const std::string& html);

// A whole page that needs nothing else: no script, no font, no picture from elsewhere. Light or dark as the reader's
// system asks.
std::string page(const std::string& title, const std::string& html);

}  // namespace temper::report
