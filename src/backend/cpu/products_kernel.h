// The packed product, one source for every instruction level (Goto & van de Geijn 2008, "Anatomy of High-Performance
// Matrix Multiplication"). Included last by products_<level>.cc, after its `#pragma GCC target`; nothing here may call
// an inline function of a header above, whose one copy could then hold instructions that other machines lack.
//
// A tile of kTileRows x (2 * kLanes) of c lives in registers; it reads
//   a   one broadcast per row and unit, from cache level 2: in place where the units of a row are neighbours, else from
//       a packed panel [units, kPanelRows]
//   b   whole vectors from cache level 1: a packed panel [units, 2 * kLanes]
// A unit is 32 bits: one f32 (also a bf16 widened while packing), or a pair of bf16 of consecutive k for the
// dot-product instruction of AVX-512-BF16.
//
// The including file defines kLanes (f32 lanes of a vector), kTileRows, TEMPER_BF16_PAIRS and TEMPER_AVX512 (0 |
// 1).

namespace temper::backend {
namespace {

constexpr int kTileVectors = 2;
constexpr int kTileCols = kTileVectors * kLanes;
constexpr int kPanelRows = (kTileRows + kLanes - 1) / kLanes * kLanes;  // of a packed a: whole vectors
constexpr int64_t kBlockUnits = 256;           // k-extent of a block whose sum goes on in an f32 c
constexpr int64_t kPanelAUnits = 64 * 1024;    // packed a: 256 KiB
constexpr int64_t kPanelBUnits = 1024 * 1024;  // packed b: 4 MiB

typedef float Floats __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Units __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes)));

#define TEMPER_INLINE inline __attribute__((always_inline))

template <class V>
TEMPER_INLINE V load(const void* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}
template <class V>
TEMPER_INLINE void store(void* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}
// The compiler's own conversion of 16 elements goes by halves.
TEMPER_INLINE Units widen(Halves value) {
#if TEMPER_AVX512
  return (Units)_mm512_maskz_cvtepu16_epi32(0xFFFF, (__m256i)value);
#else
  return __builtin_convertvector(value, Units);
#endif
}
TEMPER_INLINE Halves narrow(Units value) {
#if TEMPER_AVX512
  return (Halves)_mm512_maskz_cvtepi32_epi16(0xFFFF, (__m512i)value);
#else
  return __builtin_convertvector(value, Halves);
#endif
}

// The first `count` < kLanes elements of a vector, without touching memory beyond them.
template <class V>
TEMPER_INLINE V load_first(const char* from, int64_t count) {
#if TEMPER_AVX512
  const auto mask = static_cast<uint16_t>((1u << count) - 1);
  if constexpr (sizeof(V) == 32) {
    return (V)_mm256_maskz_loadu_epi16(mask, from);
  } else {
    return (V)_mm512_maskz_loadu_epi32(mask, from);
  }
#else
  V value{};
  for (int64_t i = 0; i < count; ++i) __builtin_memcpy(&value[i], from + i * sizeof value[i], sizeof value[i]);
  return value;
#endif
}
// All of a vector if kWhole, else its first `count`.
template <class V, bool kWhole>
TEMPER_INLINE V load_some(const char* from, int64_t count) {
  if constexpr (kWhole) return load<V>(from);
  return count < kLanes ? load_first<V>(from, count) : load<V>(from);
}
TEMPER_INLINE int64_t smaller(int64_t a, int64_t b) { return a < b ? a : b; }
TEMPER_INLINE int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }
TEMPER_INLINE int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

// --- what an operand is made of -------------------------------------------------------------------------------------

// f32 operands.
struct F32 {
  static constexpr bool kInPlace = true;  // a row of a in memory is a row of units
  static constexpr int64_t kElementBytes = 4, kPerUnit = 1;
  static TEMPER_INLINE Units load_along_k(const char* from) { return load<Units>(from); }
  template <bool kWhole>
  static TEMPER_INLINE Units load_across_k(const char* row, int64_t /*stride_bytes*/, int64_t count) {
    return load_some<Units, kWhole>(row, count);
  }
  static TEMPER_INLINE uint32_t unit(const char* from, int64_t /*stride_bytes*/, int64_t /*count*/) {
    return load<uint32_t>(from);
  }
  static TEMPER_INLINE Floats multiply_add(Floats sum, uint32_t a, Units b) {
    return sum + __builtin_bit_cast(float, a) * __builtin_bit_cast(Floats, b);
  }
};

// bf16 operands, widened to f32 while they are packed.
struct WidenedBf16 {
  static constexpr bool kInPlace = false;
  static constexpr int64_t kElementBytes = 2, kPerUnit = 1;
  static TEMPER_INLINE Units load_along_k(const char* from) { return widen(load<Halves>(from)) << 16; }
  template <bool kWhole>
  static TEMPER_INLINE Units load_across_k(const char* row, int64_t /*stride_bytes*/, int64_t count) {
    return widen(load_some<Halves, kWhole>(row, count)) << 16;
  }
  static TEMPER_INLINE uint32_t unit(const char* from, int64_t /*stride_bytes*/, int64_t /*count*/) {
    return uint32_t{load<uint16_t>(from)} << 16;
  }
  static TEMPER_INLINE Floats multiply_add(Floats sum, uint32_t a, Units b) { return F32::multiply_add(sum, a, b); }
};

#if TEMPER_BF16_PAIRS
// bf16 operands in pairs (k, k + 1): sum += a_k b_k + a_{k+1} b_{k+1}.
struct PairedBf16 {
  static constexpr bool kInPlace = true;
  static constexpr int64_t kElementBytes = 2, kPerUnit = 2;
  static TEMPER_INLINE Units load_along_k(const char* from) { return load<Units>(from); }
  template <bool kWhole>
  static TEMPER_INLINE Units load_across_k(const char* row, int64_t stride_bytes, int64_t count) {
    return widen(load_some<Halves, kWhole>(row, count)) |
           (widen(load_some<Halves, kWhole>(row + stride_bytes, count)) << 16);
  }
  static TEMPER_INLINE uint32_t unit(const char* from, int64_t stride_bytes, int64_t count) {
    const uint32_t low = load<uint16_t>(from);
    return count == 1 ? low : low | uint32_t{load<uint16_t>(from + stride_bytes)} << 16;
  }
  static TEMPER_INLINE Floats multiply_add(Floats sum, uint32_t a, Units b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)_mm512_set1_epi32(static_cast<int>(a)), (__m512bh)b);
  }
};
#endif

// --- packing --------------------------------------------------------------------------------------------------------

// A matrix seen as lines along k: line i begins at data + i * line_stride, its k-th element is k * k_stride further on.
// For a the lines are rows, for b columns. Strides in bytes.
struct Lines {
  const char* data;
  int64_t line_stride, k_stride;
  TEMPER_INLINE const char* at(int64_t line, int64_t k) const { return data + line * line_stride + k * k_stride; }
};

// Which two-operand shuffle: interleaves 32-bit or 64-bit parts within each 128-bit lane, or collects lanes.
enum class Mix { kLow32, kHigh32, kLow64, kHigh64, kEvenLanes, kOddLanes };

// Source of element i of a mix, counting through both operands.
constexpr int mix_source(Mix mix, int i) {
  const int lane = i / 4 * 4, k = i % 4;
  switch (mix) {
    case Mix::kLow32:
      return (k & 1) * kLanes + lane + k / 2;
    case Mix::kHigh32:
      return (k & 1) * kLanes + lane + 2 + k / 2;
    case Mix::kLow64:
      return (k < 2 ? 0 : kLanes) + lane + (k & 1);
    case Mix::kHigh64:
      return (k < 2 ? 0 : kLanes) + lane + 2 + (k & 1);
    case Mix::kEvenLanes:
      return 2 * lane + k;
    case Mix::kOddLanes:
      return 2 * lane + 4 + k;
  }
  return 0;
}
template <Mix kMix, int... kIndex>
TEMPER_INLINE Units mix_at(Units a, Units b, std::integer_sequence<int, kIndex...>) {
  return __builtin_shufflevector(a, b, mix_source(kMix, kIndex)...);
}
template <Mix kMix>
TEMPER_INLINE Units mix(Units a, Units b) {
  return mix_at<kMix>(a, b, std::make_integer_sequence<int, kLanes>());
}

// Transposes kLanes x kLanes units in registers: 4 x 4 blocks inside the 128-bit lanes, then the lanes.
TEMPER_INLINE void transpose(Units (&v)[kLanes]) {
#pragma GCC unroll 4
  for (int g = 0; g < kLanes; g += 4) {
    const Units a = mix<Mix::kLow32>(v[g], v[g + 1]), b = mix<Mix::kHigh32>(v[g], v[g + 1]);
    const Units c = mix<Mix::kLow32>(v[g + 2], v[g + 3]), d = mix<Mix::kHigh32>(v[g + 2], v[g + 3]);
    v[g] = mix<Mix::kLow64>(a, c), v[g + 1] = mix<Mix::kHigh64>(a, c);
    v[g + 2] = mix<Mix::kLow64>(b, d), v[g + 3] = mix<Mix::kHigh64>(b, d);
  }
  // Now lane l of v[4g + j] is column 4l + j of rows 4g..4g+3.
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    if constexpr (kLanes == 8) {
      const Units a = v[j], b = v[4 + j];
      v[j] = mix<Mix::kEvenLanes>(a, b), v[4 + j] = mix<Mix::kOddLanes>(a, b);
    } else if constexpr (kLanes == 16) {
      const Units even_low = mix<Mix::kEvenLanes>(v[j], v[4 + j]), odd_low = mix<Mix::kOddLanes>(v[j], v[4 + j]);
      const Units even_high = mix<Mix::kEvenLanes>(v[8 + j], v[12 + j]),
                  odd_high = mix<Mix::kOddLanes>(v[8 + j], v[12 + j]);
      v[j] = mix<Mix::kEvenLanes>(even_low, even_high), v[8 + j] = mix<Mix::kOddLanes>(even_low, even_high);
      v[4 + j] = mix<Mix::kEvenLanes>(odd_low, odd_high), v[12 + j] = mix<Mix::kOddLanes>(odd_low, odd_high);
    }
  }
}

// Packs units [0, units) of lines that lie side by side, by vectors of lines.
template <class Arith, int kHeight, bool kWhole>
TEMPER_INLINE void pack_across(uint32_t* panel, Lines from, int64_t readable, int64_t units) {
  for (int64_t unit = 0; unit < units; ++unit) {
    const char* row = from.at(0, unit * Arith::kPerUnit);
    if constexpr (kHeight == kTileCols) {  // fetch what the next panel reads
      __builtin_prefetch(row + kHeight * Arith::kElementBytes);
      __builtin_prefetch(row + kHeight * Arith::kElementBytes + (Arith::kPerUnit - 1) * from.k_stride);
    }
#pragma GCC unroll 2
    for (int line = 0; line < kHeight; line += kLanes) {
      if (!kWhole && line >= readable) break;
      store(panel + unit * kHeight + line,
            Arith::template load_across_k<kWhole>(row + line * Arith::kElementBytes, from.k_stride, readable - line));
    }
  }
}

// Packs units [0, units), a multiple of kLanes, of lines whose units lie side by side: transposes square blocks.
template <class Arith, int kHeight>
TEMPER_INLINE void pack_transposed(uint32_t* panel, Lines from, int64_t readable, int64_t units) {
  for (int64_t line = 0; line < smaller(kHeight, readable); line += kLanes) {
    for (int64_t unit = 0; unit < units; unit += kLanes) {
      Units block[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) {
        const char* at = from.at(smaller(line + i, readable - 1), unit * Arith::kPerUnit);
        __builtin_prefetch(at + kHeight * from.line_stride);  // what the next panel reads
        block[i] = Arith::load_along_k(at);
      }
      transpose(block);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) store(panel + (unit + i) * kHeight + line, block[i]);
    }
  }
}

// Packs lines [0, kHeight), elements [0, k), as panel[unit * kHeight + line]; kHeight is a multiple of kLanes. Lines
// from `readable` on are not in memory and become anything: they only reach rows or columns that are not stored. The
// half unit behind an odd k is zero.
template <class Arith, int kHeight>
__attribute__((noinline)) void pack_panel(uint32_t* panel, Lines from, int64_t readable, int64_t k) {
  const int64_t whole = k / Arith::kPerUnit, units = (k + Arith::kPerUnit - 1) / Arith::kPerUnit;
  int64_t done;
  if (from.line_stride == Arith::kElementBytes) {
    done = whole;
    if (readable >= kHeight) {
      pack_across<Arith, kHeight, true>(panel, from, readable, done);
    } else {
      pack_across<Arith, kHeight, false>(panel, from, readable, done);
    }
  } else {
    done = whole / kLanes * kLanes;
    pack_transposed<Arith, kHeight>(panel, from, readable, done);
  }
  for (; done < units; ++done) {
    const int64_t k_of_unit = done * Arith::kPerUnit;
    for (int64_t line = 0; line < smaller(kHeight, readable); ++line) {
      panel[done * kHeight + line] =
          Arith::unit(from.at(line, k_of_unit), from.k_stride, smaller(Arith::kPerUnit, k - k_of_unit));
    }
  }
}

// Packs `rows` lines as panels of kTileRows lines. Panels of a few units each at a time: neighbouring panels share
// cache lines of a matrix whose lines lie side by side.
template <class Arith>
TEMPER_INLINE void pack_panels_a(uint32_t* panels, Lines from, int64_t rows, int64_t readable, int64_t k) {
  constexpr int64_t kChunk = 2 * kLanes * Arith::kPerUnit;
  const int64_t units = (k + Arith::kPerUnit - 1) / Arith::kPerUnit;
  for (int64_t first = 0; first < k; first += kChunk) {
    for (int64_t i = 0; i < rows; i += kTileRows) {
      uint32_t* panel = panels + (i / kTileRows * units + first / Arith::kPerUnit) * kPanelRows;
      pack_panel<Arith, kPanelRows>(panel, {from.at(i, first), from.line_stride, from.k_stride}, readable - i,
                                    smaller(kChunk, k - first));
    }
  }
}

// --- the register tile ----------------------------------------------------------------------------------------------

TEMPER_INLINE Halves to_bf16(Floats value) {
#if TEMPER_BF16_PAIRS
  return (Halves)_mm512_cvtneps_pbh(value);
#else
  const Units bits = __builtin_bit_cast(Units, value);
  const Units rounded = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
  const Units nan = (bits >> 16) | 0x40u;
  return narrow((bits & 0x7FFFFFFFu) > 0x7F800000u ? nan : rounded);
#endif
}
TEMPER_INLINE Floats from_bf16(Halves value) { return __builtin_bit_cast(Floats, widen(value) << 16); }

struct Tile {
  char* c;
  int64_t c_row_bytes;
  int64_t cols;  // <= kTileCols
  bool c_is_bf16, accumulate;
  const char* ahead;  // fetched while the tile computes, a cache line for every unit: what is read later
  int64_t ahead_step;
};

template <bool kIsBf16, bool kAccumulate>
TEMPER_INLINE void store_vector(char* to, Floats sum) {
  if constexpr (kIsBf16) {
    store(to, to_bf16(kAccumulate ? sum + from_bf16(load<Halves>(to)) : sum));
  } else {
    store(to, kAccumulate ? sum + load<Floats>(to) : sum);
  }
}

template <bool kIsBf16, bool kAccumulate, int kRows>
TEMPER_INLINE void store_whole(const Tile& tile, const Floats (&sum)[kRows][kTileVectors]) {
  char* row = tile.c;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i, row += tile.c_row_bytes) {
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) {
      store_vector<kIsBf16, kAccumulate>(row + j * kLanes * (kIsBf16 ? 2 : 4), sum[i][j]);
    }
  }
}

// At the right edge of c: through a row of full width, so that nothing beyond c is touched.
__attribute__((noinline)) void store_edge(const Tile& tile, const Floats* sum, int rows) {
  const int64_t element_bytes = tile.c_is_bf16 ? 2 : 4, row_bytes = tile.cols * element_bytes;
  for (int i = 0; i < rows; ++i) {
    char row[4 * kTileCols];
    __builtin_memcpy(row, tile.c + i * tile.c_row_bytes, row_bytes);
    for (int j = 0; j < kTileVectors; ++j) {
      char* to = row + j * kLanes * element_bytes;
      const Floats value = sum[i * kTileVectors + j];
      if (tile.c_is_bf16) {
        tile.accumulate ? store_vector<true, true>(to, value) : store_vector<true, false>(to, value);
      } else {
        tile.accumulate ? store_vector<false, true>(to, value) : store_vector<false, false>(to, value);
      }
    }
    __builtin_memcpy(tile.c + i * tile.c_row_bytes, row, row_bytes);
  }
}

// c rows [0, kRows) = (c +) a times panel b. Units of a row of a are unit_bytes apart; both strides are those of a
// packed panel if kPacked.
template <class Arith, int kRows, bool kPacked>
__attribute__((noinline)) void tile_product(int64_t units, const char* a, int64_t a_row_bytes, const uint32_t* b,
                                            const Tile& tile) {
  const int64_t row_bytes = kPacked ? 4 : a_row_bytes, unit_bytes = kPacked ? 4 * kPanelRows : 4;
  // c of this tile and, where it is read, of the one below, which is usually next.
  const int64_t last = tile.cols * (tile.c_is_bf16 ? 2 : 4) - 1;
  char* row = tile.c;
  for (int i = 0; i < (tile.accumulate ? 2 * kRows : kRows); ++i, row += tile.c_row_bytes) {
    __builtin_prefetch(row, 1);
    __builtin_prefetch(row + last, 1);
  }
  Floats sum[kRows][kTileVectors] = {};
  // Three rows share a base address: more would not leave enough registers for addresses.
  constexpr int kBases = (kRows + 2) / 3;
  const char* base[kBases];
#pragma GCC unroll 4
  for (int i = 0; i < kBases; ++i) base[i] = a + 3 * i * row_bytes;
#pragma GCC unroll 2
  for (int64_t unit = 0; unit < units; ++unit) {
    __builtin_prefetch(tile.ahead + unit * tile.ahead_step, 0, 2);
    Units column[kTileVectors];
#pragma GCC unroll 4
    for (int j = 0; j < kTileVectors; ++j) column[j] = load<Units>(b + unit * kTileCols + j * kLanes);
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
      const uint32_t factor = load<uint32_t>(base[i / 3] + (i % 3) * row_bytes + unit * unit_bytes);
#pragma GCC unroll 4
      for (int j = 0; j < kTileVectors; ++j) sum[i][j] = Arith::multiply_add(sum[i][j], factor, column[j]);
    }
  }
  if (tile.cols < kTileCols) return store_edge(tile, &sum[0][0], kRows);
  if (tile.c_is_bf16) {
    tile.accumulate ? store_whole<true, true>(tile, sum) : store_whole<true, false>(tile, sum);
  } else {
    tile.accumulate ? store_whole<false, true>(tile, sum) : store_whole<false, false>(tile, sum);
  }
}

// `rows` <= kTileRows: by tiles of 12, 8, 4, 2 and 1 rows, so that a short end costs about what it computes.
template <class Arith, bool kPacked, int kRows = kTileRows>
TEMPER_INLINE void tile_rows(int64_t rows, int64_t units, const char* a, int64_t a_row_bytes, const uint32_t* b,
                             Tile tile) {
  const int64_t row_bytes = kPacked ? 4 : a_row_bytes;
  if (rows >= kRows) {
    tile_product<Arith, kRows, kPacked>(units, a, a_row_bytes, b, tile);
    if (rows == kRows) return;
    rows -= kRows;
    a += kRows * row_bytes;
    tile.c += kRows * tile.c_row_bytes;
  }
  if constexpr (kRows > 1) {
    tile_rows<Arith, kPacked, kRows == 12 ? 8 : (kRows == 6 ? 4 : kRows / 2)>(rows, units, a, a_row_bytes, b, tile);
  }
}

// --- the loops around it --------------------------------------------------------------------------------------------

// The next block of k of two operands whose lines lie side by side, as cache lines: tile number i of a block fetches
// the i-th column of cache lines, one row of the operand per unit.
template <class Arith>
struct Ahead {
  Lines a, b;
  int64_t rows, cols;

  TEMPER_INLINE void aim(Tile& tile, int64_t i) const {
    const Lines& of = i % 2 == 0 ? a : b;
    const int64_t k = i / 2 % Arith::kPerUnit, line = i / 2 / Arith::kPerUnit * (64 / Arith::kElementBytes);
    if (of.line_stride != Arith::kElementBytes || line >= (i % 2 == 0 ? rows : cols)) return;
    tile.ahead = of.at(line, k);
    tile.ahead_step = Arith::kPerUnit * of.k_stride;
  }
};

template <class Arith>
void product(const ProductBlock& p) {
  const Lines a{static_cast<const char*>(p.a), p.a_row_stride * Arith::kElementBytes,
                p.a_col_stride * Arith::kElementBytes};
  const Lines b{static_cast<const char*>(p.b), p.b_col_stride * Arith::kElementBytes,
                p.b_row_stride * Arith::kElementBytes};
  const int64_t c_bytes = p.c_is_bf16 ? 2 : 4;
  // A sum that is rounded to bf16 is rounded once: its k is not cut.
  const int64_t all_units = (p.k + Arith::kPerUnit - 1) / Arith::kPerUnit;
  const int64_t block_units = p.c_is_bf16 || all_units <= 3 * kBlockUnits / 2 ? larger(all_units, 1) : kBlockUnits;
  const int64_t block_rows = round_up(smaller(p.m, kPanelAUnits / block_units + 1), kTileRows);
  const int64_t block_cols = round_up(smaller(p.n, kPanelBUnits / block_units + 1), kTileCols);
  const bool in_place = Arith::kInPlace && a.k_stride == Arith::kElementBytes && p.k % Arith::kPerUnit == 0;
  const int64_t size_a = in_place ? 0 : block_units * (block_rows / kTileRows * kPanelRows);
  // Panels of b are kept for further blocks of rows; without those one panel's memory, in the nearest cache, serves
  // all.
  const bool keep_b = p.m > block_rows;
  const int64_t size_b = block_units * (keep_b ? block_cols : kTileCols);
  uint32_t* panels_a = static_cast<uint32_t*>(kernel_scratch(4 * (size_a + size_b)));
  uint32_t* panels_b = panels_a + size_a;

  for (int64_t col = 0; col < p.n; col += block_cols) {
    const int64_t cols = smaller(block_cols, p.n - col);
    for (int64_t unit = 0; unit == 0 || unit < all_units; unit += block_units) {
      const int64_t k = unit * Arith::kPerUnit, units = smaller(block_units, all_units - unit);
      const int64_t depth = smaller(units * Arith::kPerUnit, p.k - k);
      for (int64_t row = 0; row < p.m; row += block_rows) {
        const int64_t rows = smaller(block_rows, p.m - row);
        if (!in_place) {
          pack_panels_a<Arith>(panels_a, {a.at(row, k), a.line_stride, a.k_stride}, rows, p.m - row, depth);
        }
        const Ahead<Arith> next{{a.at(row, k + depth), a.line_stride, a.k_stride},
                                {b.at(col, k + depth), b.line_stride, b.k_stride},
                                rows,
                                cols};
        for (int64_t j = 0; j < cols; j += kTileCols) {
          uint32_t* panel_b = panels_b + (keep_b ? j * units : 0);
          if (row == 0) {
            pack_panel<Arith, kTileCols>(panel_b, {b.at(col + j, k), b.line_stride, b.k_stride}, p.n - col - j, depth);
          }
          Tile tile{static_cast<char*>(p.c) + (row * p.c_row_stride + col + j) * c_bytes,
                    p.c_row_stride * c_bytes,
                    smaller(kTileCols, cols - j),
                    p.c_is_bf16,
                    p.accumulate || unit > 0,
                    nullptr,
                    0};
          for (int64_t i = 0; i < rows; i += kTileRows, tile.c += kTileRows * tile.c_row_bytes) {
            const int64_t height = smaller(kTileRows, rows - i);
            tile.ahead = reinterpret_cast<const char*>(panel_b), tile.ahead_step = 0;
            if (in_place && j == 0) {
              tile.ahead = a.at(row + i + kTileRows, k), tile.ahead_step = 64;
            } else if (!in_place) {
              next.aim(tile, j / kTileCols * (rows / kTileRows) + i / kTileRows);
            }
            if (in_place) {
              tile_rows<Arith, false>(height, units, a.at(row + i, k), a.line_stride, panel_b, tile);
            } else {
              tile_rows<Arith, true>(height, units,
                                     reinterpret_cast<const char*>(panels_a + i / kTileRows * kPanelRows * units), 0,
                                     panel_b, tile);
            }
          }
        }
      }
    }
  }
}

#undef TEMPER_INLINE

}  // namespace
}  // namespace temper::backend
