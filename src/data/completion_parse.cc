// parse_completion: what an assistant wrote.
#include <algorithm>

#include "base/error.h"
#include "data/conversation_parse.h"
#include "data/flat_spans.h"
#include "data/python_json.h"
#include "data/special_tokens.h"

namespace temper::data {
namespace {

// Reads from the front; the first thing that is not as it should be ends the reading and is kept as the problem.
class CompletionReader {
 public:
  explicit CompletionReader(std::span<const ConversationSpan> spans) : flat_(spans), text_(flat_.text()) {}

  ParsedCompletion read(ConversationMode mode) {
    out_.message.role = "assistant";
    if ((mode == ConversationMode::kChat || read_reasoning()) && read_content()) read_end();
    return std::move(out_);
  }

 private:
  bool broken(size_t at, std::string what) {
    out_.problem = fmt::format("byte {} of the answer: {}", at, what);
    return false;
  }

  // A complaint that shows what stands there.
  bool expected(std::string_view what) {
    const std::string_view found = std::string_view(text_).substr(at_, 24);
    return broken(at_, found.empty() ? fmt::format("it ends where {} should come", what)
                                     : fmt::format("expected {}, found \"{}\"", what, found));
  }

  // The text up to `end`, which must not hold a special token; what comes before one is taken all the same.
  bool take_text(size_t end, std::string_view what, std::string& out) {
    if (const auto* special = flat_.special_in(at_, end)) {
      out = text_.substr(at_, special->begin - at_);
      return broken(special->begin, fmt::format("the special token {} stands inside the {}", special->token, what));
    }
    out = text_.substr(at_, end - at_);
    at_ = end;
    return true;
  }

  bool read_reasoning() {
    const size_t end = flat_.find_mark(at_, "", kEndThink, "");
    if (end == text_.npos) {
      out_.message.reasoning_content = text_;
      return broken(text_.size(), fmt::format("no {} ends the reasoning", kEndThink));
    }
    if (!take_text(end, "reasoning", out_.message.reasoning_content)) return false;
    at_ += kEndThink.size();
    return true;
  }

  bool read_content() {
    const size_t calls = flat_.find_mark(at_, "\n\n<", kDsml, "tool_calls");
    const size_t end = flat_.find_mark(at_, "", kEos, "");
    if (!take_text(std::min({calls, end, text_.size()}), "content", out_.message.content)) return false;
    if (calls > end || calls == text_.npos) return true;
    return take_mark("\n\n<", "tool_calls>\n", "a new line after the opening of the calls") && read_calls();
  }

  bool read_end() {
    if (!flat_.has_mark(at_, "", kEos, "")) {
      out_.message.without_eos = true;
      return expected(kEos);
    }
    at_ += kEos.size();
    return at_ == text_.size() || broken(at_, fmt::format("text follows {}", kEos));
  }

  bool at_mark(std::string_view before, std::string_view after) const {
    return flat_.has_mark(at_, before, kDsml, after);
  }

  bool take_mark(std::string_view before, std::string_view after, std::string_view what) {
    if (!at_mark(before, after)) return expected(what);
    at_ += before.size() + kDsml.size() + after.size();
    return true;
  }

  bool take(std::string_view literal, std::string_view what) {
    if (text_.compare(at_, literal.size(), literal) != 0) return expected(what);
    at_ += literal.size();
    return true;
  }

  // What stands before the next `stop`, and steps over that.
  bool take_until(std::string_view stop, std::string_view what, std::string& out) {
    const size_t end = text_.find(stop, at_);
    if (end == text_.npos) return broken(at_, fmt::format("the {} is not ended", what));
    if (!take_text(end, what, out)) return false;
    at_ += stop.size();
    return true;
  }

  bool read_calls() {
    do {
      ToolCall call;
      if (!take_mark("<", "invoke name=\"", "an invocation")) return false;
      if (!take_until("\">\n", "name of a tool", call.name)) return false;
      if (!read_parameters(call)) return false;
      if (!take_mark("</", "invoke>", "a parameter or the end of the invocation")) return false;
      if (!take("\n", "a new line after the invocation")) return false;
      out_.message.tool_calls.push_back(std::move(call));
    } while (!at_mark("</", "tool_calls>"));
    return take_mark("</", "tool_calls>", "the end of the calls");
  }

  bool read_parameters(ToolCall& call) {
    std::vector<std::string> keys;
    std::string arguments;
    if (at_mark("\n</", "invoke>")) ++at_;  // no parameters leave an empty line
    while (at_mark("<", "parameter")) {
      std::string key, is_string, value;
      if (!take_mark("<", "parameter name=\"", "the name of a parameter")) return false;
      if (!take_until("\" string=\"", "name of a parameter", key)) return false;
      if (std::find(keys.begin(), keys.end(), key) != keys.end())
        return broken(at_, fmt::format("the parameter \"{}\" is given twice", key));
      if (!take_until("\">", "kind of a parameter", is_string)) return false;
      if (is_string != "true" && is_string != "false")
        return broken(at_, fmt::format("string=\"{}\" is neither true nor false", is_string));
      const size_t begin = at_, end = flat_.find_mark(at_, "</", kDsml, "parameter>");
      if (end == text_.npos) return broken(begin, fmt::format("the parameter \"{}\" is not ended", key));
      if (!take_text(end, "value of a parameter", value)) return false;
      if (is_string == "false" && !read_python_json(value))
        return broken(begin, fmt::format("the parameter \"{}\" is no string and its value is not JSON", key));
      if (!take_mark("</", "parameter>", "the end of the parameter")) return false;
      if (!take("\n", "a new line after the parameter")) return false;
      arguments += (keys.empty() ? "" : ", ") + python_json_string(key) + ": " +
                   (is_string == "true" ? python_json_string(value) : value);
      if (!read_python_json("{" + arguments + "}"))
        return broken(begin, fmt::format("the parameter \"{}\" is not UTF-8", key));
      keys.push_back(std::move(key));
    }
    call.arguments = "{" + arguments + "}";
    return true;
  }

  FlatSpans flat_;
  const std::string& text_;
  size_t at_ = 0;
  ParsedCompletion out_;
};

}  // namespace

ParsedCompletion parse_completion(std::span<const ConversationSpan> completion, ConversationMode mode) {
  return CompletionReader(completion).read(mode);
}

}  // namespace temper::data
