#include "tensor/book.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "base/error.h"

namespace temper {
namespace {

TEST(Book, TensorsOfAKindLieOneAfterAnother) {
  Book book;
  View a, b, other;
  book.declare(&a, TensorKind::kSaved, "a", DType::kF32, {3});
  book.declare(&other, TensorKind::kGradient, "other", DType::kF64, {100});
  book.declare(&b, TensorKind::kSaved, "b", DType::kBF16, {5, 7});
  EXPECT_EQ(book.region_bytes(TensorKind::kSaved), 2 * Book::kAlignment);
  EXPECT_EQ(book.region_bytes(TensorKind::kGradient), 4 * Book::kAlignment);
  EXPECT_EQ(book.total_bytes(), 6 * Book::kAlignment);
  EXPECT_EQ(book.region_bytes(TensorKind::kMoment), 0);

  std::vector<char> saved(1024), gradient(1024);
  book.grant(TensorKind::kSaved, saved.data());
  book.grant(TensorKind::kGradient, gradient.data());
  EXPECT_EQ(a.raw(), saved.data());
  EXPECT_EQ(b.raw(), saved.data() + Book::kAlignment);
  EXPECT_EQ(other.raw(), gradient.data());
  EXPECT_EQ(b.shape, (Shape{5, 7}));
}

TEST(Book, WhatComesAfterARewindSharesTheMemory) {
  Book book;
  View kept, first, second, after;
  book.declare(&kept, TensorKind::kScratch, "kept", DType::kF32, {64});
  {
    ScratchScope scope(book);
    book.declare(&first, TensorKind::kScratch, "first", DType::kF32, {640});
  }
  {
    ScratchScope scope(book);
    book.declare(&second, TensorKind::kScratch, "second", DType::kF32, {64});
    book.declare(&after, TensorKind::kScratch, "after", DType::kF32, {64});
  }
  EXPECT_EQ(book.region_bytes(TensorKind::kScratch), 11 * 256);  // the high mark: kept and first
  std::vector<char> memory(11 * 256);
  book.grant(TensorKind::kScratch, memory.data());
  EXPECT_EQ(first.raw(), second.raw());
  EXPECT_EQ(after.raw(), memory.data() + 512);
  EXPECT_NE(kept.raw(), first.raw());
}

TEST(Book, SizesWhoseProductExceedsEveryNumberAreRefused) {
  Book book;
  View view;
  const int64_t wide = int64_t{1} << 20;
  const auto is_refused = [&](const Shape& shape) {
    try {
      book.declare(&view, TensorKind::kParameter, "experts", DType::kF32, shape);
    } catch (const Error& error) {
      return error.code() == ErrorCode::kOutOfMemory && std::string(error.what()).find("experts") != std::string::npos;
    }
    return false;
  };
  EXPECT_TRUE(is_refused({wide, wide, wide, wide}));
  EXPECT_TRUE(is_refused({wide, wide, wide}));
  EXPECT_FALSE(is_refused({wide, wide, 1 << 13}));  // half of the region
  EXPECT_FALSE(is_refused({0, wide, wide}));
  EXPECT_TRUE(is_refused({wide, wide, 1 << 14}));
  EXPECT_GT(book.total_bytes(), 0);
}

TEST(Book, ScopesNest) {
  Book book;
  View outer, inner, sibling;
  {
    ScratchScope a(book);
    book.declare(&outer, TensorKind::kScratch, "outer", DType::kF32, {1});
    {
      ScratchScope b(book);
      book.declare(&inner, TensorKind::kScratch, "inner", DType::kF32, {1});
    }
    book.declare(&sibling, TensorKind::kScratch, "sibling", DType::kF32, {1});
  }
  EXPECT_EQ(book.mark(TensorKind::kScratch), 0);
  std::vector<char> memory(1024);
  book.grant(TensorKind::kScratch, memory.data());
  EXPECT_EQ(inner.raw(), sibling.raw());
  EXPECT_NE(inner.raw(), outer.raw());
}

TEST(Book, PrintsATableOfWhatItHolds) {
  Book book;
  View a, b;
  book.declare(&a, TensorKind::kParameter, "small", DType::kF32, {3});
  book.declare(&b, TensorKind::kParameter, "model.embed", DType::kBF16, {1024, 1024});
  const std::string table = book.table();
  EXPECT_NE(table.find("parameters"), std::string::npos) << table;
  EXPECT_NE(table.find("model.embed bf16[1024, 1024]"), std::string::npos) << table;
  EXPECT_EQ(table.find("scratch"), std::string::npos) << table;
}

TEST(Book, FormatsBytes) {
  EXPECT_EQ(format_bytes(0), "0 B");
  EXPECT_EQ(format_bytes(1023), "1023 B");
  EXPECT_EQ(format_bytes(int64_t{3} << 29), "1.50 GiB");
}

TEST(BookDeathTest, RefusesToRewindForward) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";
  Book book;
  EXPECT_DEATH(book.rewind(TensorKind::kSaved, 256), "CHECK failed");
}

}  // namespace
}  // namespace temper
