// Generated from lib/engines/kernels/schema.ts by `npm run build:kernels`. Do not edit.
#pragma once
#include "operator/reader.h"

namespace kernels {
struct AttentionWeights {
  static constexpr int numValues = 17;
  float scale;
  int64_t numHeads;
  int64_t numKeyValueHeads;
  int64_t window;
  float headEps;
  float eps;
  ::Format formats[4];
  Tensor norm, weight, bias, weight1, bias1, weight2, bias2, weight3, bias3, qNorm, kNorm, sinks;
  static AttentionWeights read(Reader &reader, Axes &axes) {
    AttentionWeights s{};
    s.scale = reader.readFloat();
    s.numHeads = reader.readInt("numHeads");
    s.numKeyValueHeads = reader.readInt("numKeyValueHeads");
    s.window = reader.readInt("window");
    s.headEps = reader.readFloat();
    s.eps = reader.readFloat();
    for (auto &each : s.formats) each = reader.readEnum<::Format>("formats", 0, 5);
    const bool has_bias = reader.readBool();
    const bool has_bias1 = reader.readBool();
    const bool has_bias2 = reader.readBool();
    const bool has_bias3 = reader.readBool();
    const bool has_qNorm = reader.readBool();
    const bool has_kNorm = reader.readBool();
    const bool has_sinks = reader.readBool();
    require(s.numHeads == 0 || axes.bind('H', s.numHeads), "numHeads must be H");
    require(s.numKeyValueHeads == 0 || axes.bind('G', s.numKeyValueHeads), "numKeyValueHeads must be G");
    s.norm = reader.input("norm", TF_FLOAT, "D", axes);
    s.weight = reader.weight("weight", s.formats[0], "(HK)D", axes);
    if (has_bias) s.bias = reader.input("bias", TF_FLOAT, "(HK)", axes);
    s.weight1 = reader.weight("weight1", s.formats[1], "(GK)D", axes);
    if (has_bias1) s.bias1 = reader.input("bias1", TF_FLOAT, "(GK)", axes);
    s.weight2 = reader.weight("weight2", s.formats[2], "(GK)D", axes);
    if (has_bias2) s.bias2 = reader.input("bias2", TF_FLOAT, "(GK)", axes);
    s.weight3 = reader.weight("weight3", s.formats[3], "D(HK)", axes);
    if (has_bias3) s.bias3 = reader.input("bias3", TF_FLOAT, "D", axes);
    if (has_qNorm) s.qNorm = reader.input("qNorm", TF_FLOAT, "K", axes);
    if (has_kNorm) s.kNorm = reader.input("kNorm", TF_FLOAT, "K", axes);
    if (has_sinks) s.sinks = reader.input("sinks", TF_FLOAT, "H", axes);
    require(axes['G'] > 0 && axes['H'] % axes['G'] == 0, "G must be positive and divide H");
    return s;
  }
};

struct MlpWeights {
  static constexpr int numValues = 8;
  ::Activation activation;
  float eps;
  ::Format formats[3];
  Tensor norm, weight, bias, weight1, bias1, weight2, bias2;
  static MlpWeights read(Reader &reader, Axes &axes) {
    MlpWeights s{};
    s.activation = reader.readEnum<::Activation>("activation", 0, 6);
    s.eps = reader.readFloat();
    for (auto &each : s.formats) each = reader.readEnum<::Format>("formats", 0, 5);
    const bool has_bias = reader.readBool();
    const bool has_bias1 = reader.readBool();
    const bool has_bias2 = reader.readBool();
    s.norm = reader.input("norm", TF_FLOAT, "D", axes);
    s.weight = reader.weight("weight", s.formats[0], "ID", axes);
    if (has_bias) s.bias = reader.input("bias", TF_FLOAT, "I", axes);
    s.weight1 = reader.weight("weight1", s.formats[1], "ID", axes);
    if (has_bias1) s.bias1 = reader.input("bias1", TF_FLOAT, "I", axes);
    s.weight2 = reader.weight("weight2", s.formats[2], "DI", axes);
    if (has_bias2) s.bias2 = reader.input("bias2", TF_FLOAT, "D", axes);
    return s;
  }
};

struct Linear {
  static constexpr const char *operatorName = "InternvlLinear";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 4;
  ::Activation activation;
  ::Format format;
  Tensor x, residual, weight, bias;
  Axes axes;
  static Linear read([[maybe_unused]] Reader &reader) {
    Linear s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.activation = reader.readEnum<::Activation>("activation", 0, 6);
    s.format = reader.readEnum<::Format>("format", 0, 5);
    const bool has_residual = reader.readBool();
    const bool has_bias = reader.readBool();
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    if (has_residual) s.residual = reader.input("residual", TF_FLOAT, ".N", axes);
    s.weight = reader.weight("weight", s.format, "NK", axes);
    if (has_bias) s.bias = reader.input("bias", TF_FLOAT, "N", axes);
    return s;
  }
};

struct QkvLinear {
  static constexpr const char *operatorName = "InternvlQkvLinear";
  static constexpr const char *outputs[] = {"q: float", "k: float", "v: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 6;
  ::Format formats[3];
  Tensor x, weight, bias, weight1, bias1, weight2, bias2;
  Axes axes;
  static QkvLinear read([[maybe_unused]] Reader &reader) {
    QkvLinear s{};
    [[maybe_unused]] Axes &axes = s.axes;
    for (auto &each : s.formats) each = reader.readEnum<::Format>("formats", 0, 5);
    const bool has_bias = reader.readBool();
    const bool has_bias1 = reader.readBool();
    const bool has_bias2 = reader.readBool();
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    s.weight = reader.weight("weight", s.formats[0], "NK", axes);
    if (has_bias) s.bias = reader.input("bias", TF_FLOAT, "N", axes);
    s.weight1 = reader.weight("weight1", s.formats[1], "PK", axes);
    if (has_bias1) s.bias1 = reader.input("bias1", TF_FLOAT, "P", axes);
    s.weight2 = reader.weight("weight2", s.formats[2], "QK", axes);
    if (has_bias2) s.bias2 = reader.input("bias2", TF_FLOAT, "Q", axes);
    return s;
  }
};

struct GateUpLinear {
  static constexpr const char *operatorName = "InternvlGateUpLinear";
  static constexpr const char *outputs[] = {"gate: float", "up: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 4;
  ::Format formats[2];
  Tensor x, weight, bias, weight1, bias1;
  Axes axes;
  static GateUpLinear read([[maybe_unused]] Reader &reader) {
    GateUpLinear s{};
    [[maybe_unused]] Axes &axes = s.axes;
    for (auto &each : s.formats) each = reader.readEnum<::Format>("formats", 0, 5);
    const bool has_bias = reader.readBool();
    const bool has_bias1 = reader.readBool();
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    s.weight = reader.weight("weight", s.formats[0], "NK", axes);
    if (has_bias) s.bias = reader.input("bias", TF_FLOAT, "N", axes);
    s.weight1 = reader.weight("weight1", s.formats[1], "PK", axes);
    if (has_bias1) s.bias1 = reader.input("bias1", TF_FLOAT, "P", axes);
    return s;
  }
};

struct GatedMlp {
  static constexpr const char *operatorName = "InternvlGatedMlp";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 10;
  ::Activation activation;
  float eps;
  ::Format formats[3];
  Tensor x, norm, residual, weight, bias, weight1, bias1, weight2, bias2;
  Axes axes;
  static GatedMlp read([[maybe_unused]] Reader &reader) {
    GatedMlp s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.activation = reader.readEnum<::Activation>("activation", 0, 6);
    s.eps = reader.readFloat();
    for (auto &each : s.formats) each = reader.readEnum<::Format>("formats", 0, 5);
    const bool has_norm = reader.readBool();
    const bool has_residual = reader.readBool();
    const bool has_bias = reader.readBool();
    const bool has_bias1 = reader.readBool();
    const bool has_bias2 = reader.readBool();
    s.x = reader.input("x", TF_FLOAT, ".D", axes);
    if (has_norm) s.norm = reader.input("norm", TF_FLOAT, "D", axes);
    if (has_residual) s.residual = reader.input("residual", TF_FLOAT, ".N", axes);
    s.weight = reader.weight("weight", s.formats[0], "ID", axes);
    if (has_bias) s.bias = reader.input("bias", TF_FLOAT, "I", axes);
    s.weight1 = reader.weight("weight1", s.formats[1], "ID", axes);
    if (has_bias1) s.bias1 = reader.input("bias1", TF_FLOAT, "I", axes);
    s.weight2 = reader.weight("weight2", s.formats[2], "NI", axes);
    if (has_bias2) s.bias2 = reader.input("bias2", TF_FLOAT, "N", axes);
    return s;
  }
};

struct QuantizeWeight {
  static constexpr const char *operatorName = "InternvlQuantizeWeight";
  static constexpr const char *outputs[] = {"y: int32"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 1;
  ::Format format;
  Tensor x;
  Axes axes;
  static QuantizeWeight read([[maybe_unused]] Reader &reader) {
    QuantizeWeight s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.format = reader.readEnum<::Format>("format", 1, 5);
    s.x = reader.input("x", TF_FLOAT, "NK", axes);
    return s;
  }
};

struct DequantizeWeight {
  static constexpr const char *operatorName = "InternvlDequantizeWeight";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 2;
  ::Format format;
  int64_t columns;
  Tensor x;
  Axes axes;
  static DequantizeWeight read([[maybe_unused]] Reader &reader) {
    DequantizeWeight s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.format = reader.readEnum<::Format>("format", 1, 5);
    s.columns = reader.readInt("columns");
    require(s.columns == 0 || axes.bind('K', s.columns), "columns must be K");
    s.x = reader.weight("x", s.format, ".K", axes);
    return s;
  }
};

struct Activation {
  static constexpr const char *operatorName = "InternvlActivation";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 1;
  ::Activation activation;
  Tensor x;
  Axes axes;
  static Activation read([[maybe_unused]] Reader &reader) {
    Activation s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.activation = reader.readEnum<::Activation>("activation", 0, 6);
    s.x = reader.input("x", TF_FLOAT, ".", axes);
    return s;
  }
};

struct GatedActivation {
  static constexpr const char *operatorName = "InternvlGatedActivation";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 1;
  ::Activation activation;
  Tensor gate, up;
  Axes axes;
  static GatedActivation read([[maybe_unused]] Reader &reader) {
    GatedActivation s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.activation = reader.readEnum<::Activation>("activation", 0, 6);
    s.gate = reader.input("gate", TF_FLOAT, ".", axes);
    s.up = reader.input("up", TF_FLOAT, ".", axes);
    return s;
  }
};

struct ScaledResidual {
  static constexpr const char *operatorName = "InternvlScaledResidual";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 0;
  Tensor x, branch, scale;
  Axes axes;
  static ScaledResidual read([[maybe_unused]] Reader &reader) {
    ScaledResidual s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.x = reader.input("x", TF_FLOAT, ".D", axes);
    s.branch = reader.input("branch", TF_FLOAT, ".D", axes);
    s.scale = reader.input("scale", TF_FLOAT, "D", axes);
    return s;
  }
};

struct LayerNorm {
  static constexpr const char *operatorName = "InternvlLayerNorm";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 1;
  float eps;
  Tensor x, weight, bias;
  Axes axes;
  static LayerNorm read([[maybe_unused]] Reader &reader) {
    LayerNorm s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.eps = reader.readFloat();
    s.x = reader.input("x", TF_FLOAT, ".D", axes);
    s.weight = reader.input("weight", TF_FLOAT, "D", axes);
    s.bias = reader.input("bias", TF_FLOAT, "D", axes);
    return s;
  }
};

struct RmsNorm {
  static constexpr const char *operatorName = "InternvlRmsNorm";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 1;
  float eps;
  Tensor x, weight;
  Axes axes;
  static RmsNorm read([[maybe_unused]] Reader &reader) {
    RmsNorm s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.eps = reader.readFloat();
    s.x = reader.input("x", TF_FLOAT, ".N", axes);
    s.weight = reader.input("weight", TF_FLOAT, "D", axes);
    require(axes['D'] > 0 && axes['N'] % axes['D'] == 0, "D must be positive and divide N");
    return s;
  }
};

struct Rope {
  static constexpr const char *operatorName = "InternvlRope";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 2;
  int64_t numHeads;
  bool inverse;
  Tensor x, cos, sin;
  Axes axes;
  static Rope read([[maybe_unused]] Reader &reader) {
    Rope s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.numHeads = reader.readInt("numHeads");
    s.inverse = reader.readBool();
    require(s.numHeads == 0 || axes.bind('H', s.numHeads), "numHeads must be H");
    s.x = reader.input("x", TF_FLOAT, "BHLK|BL(HK)", axes);
    s.cos = reader.input("cos", TF_FLOAT, "T1LR", axes);
    s.sin = reader.input("sin", TF_FLOAT, "T1LR", axes);
    require(axes['T'] < 0 || axes['T'] == 1 || axes['T'] == axes['B'], "T must be 1 or B");
    require(axes['R'] % 2 == 0, "R must be even");
    require(axes['R'] <= axes['K'], "R must be at most K");
    return s;
  }
};

struct Attention {
  static constexpr const char *operatorName = "InternvlAttention";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 9;
  float scale;
  int64_t numHeads;
  int64_t numKeyValueHeads;
  bool causal;
  int64_t window;
  bool bfloat16;
  Tensor q, k, v, mask, sinks, segments;
  Axes axes;
  static Attention read([[maybe_unused]] Reader &reader) {
    Attention s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.scale = reader.readFloat();
    s.numHeads = reader.readInt("numHeads");
    s.numKeyValueHeads = reader.readInt("numKeyValueHeads");
    s.causal = reader.readBool();
    s.window = reader.readInt("window");
    s.bfloat16 = reader.readBool();
    const bool has_mask = reader.readBool();
    const bool has_sinks = reader.readBool();
    const bool has_segments = reader.readBool();
    require(s.numHeads == 0 || axes.bind('H', s.numHeads), "numHeads must be H");
    require(s.numKeyValueHeads == 0 || axes.bind('G', s.numKeyValueHeads), "numKeyValueHeads must be G");
    s.q = reader.input("q", TF_FLOAT, "BHLK|BL(HK)", axes);
    s.k = reader.input("k", TF_FLOAT, "BGSK|BS(GK)", axes);
    s.v = reader.input("v", TF_FLOAT, "BGSK|BS(GK)", axes);
    if (has_mask) s.mask = reader.input("mask", TF_FLOAT, "M11S", axes);
    if (has_sinks) s.sinks = reader.input("sinks", TF_FLOAT, "H", axes);
    if (has_segments) s.segments = reader.input("segments", TF_INT32, "BS", axes);
    require(axes['G'] > 0 && axes['H'] % axes['G'] == 0, "G must be positive and divide H");
    require(axes['M'] < 0 || axes['M'] == 1 || axes['M'] == axes['B'], "M must be 1 or B");
    require(!s.causal || axes['L'] <= axes['S'], "L must be at most S");
    return s;
  }
};

struct CachedAttention {
  static constexpr const char *operatorName = "InternvlCachedAttention";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 11;
  int64_t pastLength;
  ::Format cacheFormat;
  float scale;
  int64_t numHeads;
  int64_t numKeyValueHeads;
  int64_t window;
  float headEps;
  Tensor q, k, v, cos, sin, mask, key, value, qNorm, kNorm, sinks;
  Axes axes;
  static CachedAttention read([[maybe_unused]] Reader &reader) {
    CachedAttention s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.pastLength = reader.readInt("pastLength");
    s.cacheFormat = reader.readEnum<::Format>("cacheFormat", 0, 5);
    s.scale = reader.readFloat();
    s.numHeads = reader.readInt("numHeads");
    s.numKeyValueHeads = reader.readInt("numKeyValueHeads");
    s.window = reader.readInt("window");
    s.headEps = reader.readFloat();
    const bool has_mask = reader.readBool();
    const bool has_qNorm = reader.readBool();
    const bool has_kNorm = reader.readBool();
    const bool has_sinks = reader.readBool();
    require(s.numHeads == 0 || axes.bind('H', s.numHeads), "numHeads must be H");
    require(s.numKeyValueHeads == 0 || axes.bind('G', s.numKeyValueHeads), "numKeyValueHeads must be G");
    s.q = reader.input("q", TF_FLOAT, "BL(HK)", axes);
    s.k = reader.input("k", TF_FLOAT, "BL(GK)", axes);
    s.v = reader.input("v", TF_FLOAT, "BL(GK)", axes);
    s.cos = reader.input("cos", TF_FLOAT, "T1LR", axes);
    s.sin = reader.input("sin", TF_FLOAT, "T1LR", axes);
    if (has_mask) s.mask = reader.input("mask", TF_FLOAT, "M11S", axes);
    s.key = reader.weight("key", s.cacheFormat, "BGCK", axes, ::Format::bfloat16);
    s.value = reader.weight("value", s.cacheFormat, "BGCK", axes);
    if (has_qNorm) s.qNorm = reader.input("qNorm", TF_FLOAT, "K", axes);
    if (has_kNorm) s.kNorm = reader.input("kNorm", TF_FLOAT, "K", axes);
    if (has_sinks) s.sinks = reader.input("sinks", TF_FLOAT, "H", axes);
    require(axes['G'] > 0 && axes['H'] % axes['G'] == 0, "G must be positive and divide H");
    require(axes['T'] < 0 || axes['T'] == 1 || axes['T'] == axes['B'], "T must be 1 or B");
    require(axes['R'] % 2 == 0, "R must be even");
    require(axes.bind('S', s.pastLength + axes['L']), "S must be pastLength + L");
    require(axes['M'] < 0 || axes['M'] == 1 || axes['M'] == axes['B'], "M must be 1 or B");
    require(axes['S'] <= axes['C'], "S must be at most C");
    require(axes['R'] <= axes['K'], "R must be at most K");
    return s;
  }
};

struct AttentionBlock {
  static constexpr const char *operatorName = "InternvlAttentionBlock";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 4;
  int64_t pastLength;
  ::Format cacheFormat;
  int64_t headDim;
  Tensor x, cos, sin, mask, key, value;
  AttentionWeights part;
  Axes axes;
  static AttentionBlock read([[maybe_unused]] Reader &reader) {
    AttentionBlock s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.pastLength = reader.readInt("pastLength");
    s.cacheFormat = reader.readEnum<::Format>("cacheFormat", 0, 5);
    s.headDim = reader.readInt("headDim");
    const bool has_mask = reader.readBool();
    require(s.headDim == 0 || axes.bind('K', s.headDim), "headDim must be K");
    s.x = reader.input("x", TF_FLOAT, "BLD", axes);
    s.cos = reader.input("cos", TF_FLOAT, "T1LR", axes);
    s.sin = reader.input("sin", TF_FLOAT, "T1LR", axes);
    if (has_mask) s.mask = reader.input("mask", TF_FLOAT, "M11S", axes);
    s.key = reader.weight("key", s.cacheFormat, "BGCK", axes, ::Format::bfloat16);
    s.value = reader.weight("value", s.cacheFormat, "BGCK", axes);
    require(axes['T'] < 0 || axes['T'] == 1 || axes['T'] == axes['B'], "T must be 1 or B");
    require(axes['R'] % 2 == 0, "R must be even");
    require(axes.bind('S', s.pastLength + axes['L']), "S must be pastLength + L");
    require(axes['M'] < 0 || axes['M'] == 1 || axes['M'] == axes['B'], "M must be 1 or B");
    require(axes['S'] <= axes['C'], "S must be at most C");
    require(axes['R'] <= axes['K'], "R must be at most K");
    s.part = AttentionWeights::read(reader, axes);
    return s;
  }
};

struct DecoderLayers {
  static constexpr const char *operatorName = "InternvlDecoderLayers";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 6;
  int64_t pastLength;
  ::Format cacheFormat;
  int64_t headDim;
  int64_t numLayers;
  float eps;
  Tensor x, cos, sin, mask;
  Axes axes;
  static DecoderLayers read([[maybe_unused]] Reader &reader) {
    DecoderLayers s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.pastLength = reader.readInt("pastLength");
    s.cacheFormat = reader.readEnum<::Format>("cacheFormat", 0, 5);
    s.headDim = reader.readInt("headDim");
    s.numLayers = reader.readInt("numLayers");
    s.eps = reader.readFloat();
    const bool has_mask = reader.readBool();
    require(s.headDim == 0 || axes.bind('K', s.headDim), "headDim must be K");
    s.x = reader.input("x", TF_FLOAT, "BLD", axes);
    s.cos = reader.input("cos", TF_FLOAT, "T1LR", axes);
    s.sin = reader.input("sin", TF_FLOAT, "T1LR", axes);
    if (has_mask) s.mask = reader.input("mask", TF_FLOAT, "M11S", axes);
    require(axes['T'] < 0 || axes['T'] == 1 || axes['T'] == axes['B'], "T must be 1 or B");
    require(axes['R'] % 2 == 0, "R must be even");
    require(axes.bind('S', s.pastLength + axes['L']), "S must be pastLength + L");
    require(axes['M'] < 0 || axes['M'] == 1 || axes['M'] == axes['B'], "M must be 1 or B");
    return s;
  }
};

struct LinearBackward {
  static constexpr const char *operatorName = "InternvlLinearBackward";
  static constexpr const char *outputs[] = {"dx: float", "dweight: float", "dbias: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 3;
  bool needsX;
  bool needsWeight;
  bool needsBias;
  Tensor dy, x, weight;
  Axes axes;
  static LinearBackward read([[maybe_unused]] Reader &reader) {
    LinearBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.needsX = reader.readBool();
    s.needsWeight = reader.readBool();
    s.needsBias = reader.readBool();
    s.dy = reader.input("dy", TF_FLOAT, ".N", axes);
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    s.weight = reader.input("weight", TF_FLOAT, "NK", axes);
    return s;
  }
};

struct QkvLinearBackward {
  static constexpr const char *operatorName = "InternvlQkvLinearBackward";
  static constexpr const char *outputs[] = {"dx: float", "dweight: float", "dbias: float", "dweight1: float", "dbias1: float", "dweight2: float", "dbias2: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 7;
  bool needsX;
  bool needsWeight[3];
  bool needsBias[3];
  Tensor dq, dk, dv, x, weight, weight1, weight2;
  Axes axes;
  static QkvLinearBackward read([[maybe_unused]] Reader &reader) {
    QkvLinearBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.needsX = reader.readBool();
    for (auto &each : s.needsWeight) each = reader.readBool();
    for (auto &each : s.needsBias) each = reader.readBool();
    s.dq = reader.input("dq", TF_FLOAT, ".N", axes);
    s.dk = reader.input("dk", TF_FLOAT, ".P", axes);
    s.dv = reader.input("dv", TF_FLOAT, ".Q", axes);
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    s.weight = reader.input("weight", TF_FLOAT, "NK", axes);
    s.weight1 = reader.input("weight1", TF_FLOAT, "PK", axes);
    s.weight2 = reader.input("weight2", TF_FLOAT, "QK", axes);
    return s;
  }
};

struct GateUpLinearBackward {
  static constexpr const char *operatorName = "InternvlGateUpLinearBackward";
  static constexpr const char *outputs[] = {"dx: float", "dweight: float", "dbias: float", "dweight1: float", "dbias1: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 5;
  bool needsX;
  bool needsWeight[2];
  bool needsBias[2];
  Tensor dgate, dup, x, weight, weight1;
  Axes axes;
  static GateUpLinearBackward read([[maybe_unused]] Reader &reader) {
    GateUpLinearBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.needsX = reader.readBool();
    for (auto &each : s.needsWeight) each = reader.readBool();
    for (auto &each : s.needsBias) each = reader.readBool();
    s.dgate = reader.input("dgate", TF_FLOAT, ".N", axes);
    s.dup = reader.input("dup", TF_FLOAT, ".P", axes);
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    s.weight = reader.input("weight", TF_FLOAT, "NK", axes);
    s.weight1 = reader.input("weight1", TF_FLOAT, "PK", axes);
    return s;
  }
};

struct LoraLinear {
  static constexpr const char *operatorName = "InternvlLoraLinear";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 2;
  Tensor x, weight, bias, lora_A, lora_B, scaling, loraInput;
  Axes axes;
  static LoraLinear read([[maybe_unused]] Reader &reader) {
    LoraLinear s{};
    [[maybe_unused]] Axes &axes = s.axes;
    const bool has_bias = reader.readBool();
    const bool has_loraInput = reader.readBool();
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    s.weight = reader.input("weight", TF_FLOAT, "NK", axes);
    if (has_bias) s.bias = reader.input("bias", TF_FLOAT, "N", axes);
    s.lora_A = reader.input("lora_A", TF_FLOAT, "QK", axes);
    s.lora_B = reader.input("lora_B", TF_FLOAT, "NQ", axes);
    s.scaling = reader.input("scaling", TF_FLOAT, "", axes);
    if (has_loraInput) s.loraInput = reader.input("loraInput", TF_FLOAT, ".K", axes);
    return s;
  }
};

struct LoraLinearBackward {
  static constexpr const char *operatorName = "InternvlLoraLinearBackward";
  static constexpr const char *outputs[] = {"dx: float", "dlora_input: float", "dlora_a: float", "dlora_b: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 5;
  bool needsX;
  bool needsLoraInput;
  bool needsLoraA;
  bool needsLoraB;
  Tensor dy, x, weight, lora_A, lora_B, scaling, loraInput;
  Axes axes;
  static LoraLinearBackward read([[maybe_unused]] Reader &reader) {
    LoraLinearBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.needsX = reader.readBool();
    s.needsLoraInput = reader.readBool();
    s.needsLoraA = reader.readBool();
    s.needsLoraB = reader.readBool();
    const bool has_loraInput = reader.readBool();
    s.dy = reader.input("dy", TF_FLOAT, ".N", axes);
    s.x = reader.input("x", TF_FLOAT, ".K", axes);
    s.weight = reader.input("weight", TF_FLOAT, "NK", axes);
    s.lora_A = reader.input("lora_A", TF_FLOAT, "QK", axes);
    s.lora_B = reader.input("lora_B", TF_FLOAT, "NQ", axes);
    s.scaling = reader.input("scaling", TF_FLOAT, "", axes);
    if (has_loraInput) s.loraInput = reader.input("loraInput", TF_FLOAT, ".K", axes);
    return s;
  }
};

struct LayerNormBackward {
  static constexpr const char *operatorName = "InternvlLayerNormBackward";
  static constexpr const char *outputs[] = {"dx: float", "dweight: float", "dbias: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 2;
  float eps;
  Tensor dy, x, weight, sum;
  Axes axes;
  static LayerNormBackward read([[maybe_unused]] Reader &reader) {
    LayerNormBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.eps = reader.readFloat();
    const bool has_sum = reader.readBool();
    s.dy = reader.input("dy", TF_FLOAT, ".D", axes);
    s.x = reader.input("x", TF_FLOAT, ".D", axes);
    s.weight = reader.input("weight", TF_FLOAT, "D", axes);
    if (has_sum) s.sum = reader.input("sum", TF_FLOAT, ".D", axes);
    return s;
  }
};

struct RmsNormBackward {
  static constexpr const char *operatorName = "InternvlRmsNormBackward";
  static constexpr const char *outputs[] = {"dx: float", "dweight: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 2;
  float eps;
  Tensor dy, x, weight, sum;
  Axes axes;
  static RmsNormBackward read([[maybe_unused]] Reader &reader) {
    RmsNormBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.eps = reader.readFloat();
    const bool has_sum = reader.readBool();
    s.dy = reader.input("dy", TF_FLOAT, ".N", axes);
    s.x = reader.input("x", TF_FLOAT, ".N", axes);
    s.weight = reader.input("weight", TF_FLOAT, "D", axes);
    if (has_sum) s.sum = reader.input("sum", TF_FLOAT, ".N", axes);
    require(axes['D'] > 0 && axes['N'] % axes['D'] == 0, "D must be positive and divide N");
    return s;
  }
};

struct ActivationBackward {
  static constexpr const char *operatorName = "InternvlActivationBackward";
  static constexpr const char *outputs[] = {"dx: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 1;
  ::Activation activation;
  Tensor dy, x;
  Axes axes;
  static ActivationBackward read([[maybe_unused]] Reader &reader) {
    ActivationBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.activation = reader.readEnum<::Activation>("activation", 0, 6);
    s.dy = reader.input("dy", TF_FLOAT, ".", axes);
    s.x = reader.input("x", TF_FLOAT, ".", axes);
    return s;
  }
};

struct GatedActivationBackward {
  static constexpr const char *operatorName = "InternvlGatedActivationBackward";
  static constexpr const char *outputs[] = {"dgate: float", "dup: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 1;
  ::Activation activation;
  Tensor dy, gate, up;
  Axes axes;
  static GatedActivationBackward read([[maybe_unused]] Reader &reader) {
    GatedActivationBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.activation = reader.readEnum<::Activation>("activation", 0, 6);
    s.dy = reader.input("dy", TF_FLOAT, ".", axes);
    s.gate = reader.input("gate", TF_FLOAT, ".", axes);
    s.up = reader.input("up", TF_FLOAT, ".", axes);
    return s;
  }
};

struct ScaledResidualBackward {
  static constexpr const char *operatorName = "InternvlScaledResidualBackward";
  static constexpr const char *outputs[] = {"dbranch: float", "dscale: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 0;
  Tensor dy, branch, scale;
  Axes axes;
  static ScaledResidualBackward read([[maybe_unused]] Reader &reader) {
    ScaledResidualBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.dy = reader.input("dy", TF_FLOAT, ".D", axes);
    s.branch = reader.input("branch", TF_FLOAT, ".D", axes);
    s.scale = reader.input("scale", TF_FLOAT, "D", axes);
    return s;
  }
};

struct AttentionBackward {
  static constexpr const char *operatorName = "InternvlAttentionBackward";
  static constexpr const char *outputs[] = {"dq: float", "dk: float", "dv: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 8;
  float scale;
  int64_t numHeads;
  int64_t numKeyValueHeads;
  bool causal;
  int64_t window;
  bool bfloat16;
  Tensor dy, q, k, v, mask, segments;
  Axes axes;
  static AttentionBackward read([[maybe_unused]] Reader &reader) {
    AttentionBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.scale = reader.readFloat();
    s.numHeads = reader.readInt("numHeads");
    s.numKeyValueHeads = reader.readInt("numKeyValueHeads");
    s.causal = reader.readBool();
    s.window = reader.readInt("window");
    s.bfloat16 = reader.readBool();
    const bool has_mask = reader.readBool();
    const bool has_segments = reader.readBool();
    require(s.numHeads == 0 || axes.bind('H', s.numHeads), "numHeads must be H");
    require(s.numKeyValueHeads == 0 || axes.bind('G', s.numKeyValueHeads), "numKeyValueHeads must be G");
    s.dy = reader.input("dy", TF_FLOAT, "BHLK|BL(HK)", axes);
    s.q = reader.input("q", TF_FLOAT, "BHLK|BL(HK)", axes);
    s.k = reader.input("k", TF_FLOAT, "BGSK|BS(GK)", axes);
    s.v = reader.input("v", TF_FLOAT, "BGSK|BS(GK)", axes);
    if (has_mask) s.mask = reader.input("mask", TF_FLOAT, "M11S", axes);
    if (has_segments) s.segments = reader.input("segments", TF_INT32, "BS", axes);
    require(axes['G'] > 0 && axes['H'] % axes['G'] == 0, "G must be positive and divide H");
    require(axes['M'] < 0 || axes['M'] == 1 || axes['M'] == axes['B'], "M must be 1 or B");
    require(!s.causal || axes['L'] <= axes['S'], "L must be at most S");
    return s;
  }
};

struct CrossEntropy {
  static constexpr const char *operatorName = "InternvlCrossEntropy";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 0;
  Tensor logits, labels;
  Axes axes;
  static CrossEntropy read([[maybe_unused]] Reader &reader) {
    CrossEntropy s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.logits = reader.input("logits", TF_FLOAT, ".V", axes);
    s.labels = reader.input("labels", TF_INT32, ".", axes);
    return s;
  }
};

struct CrossEntropyBackward {
  static constexpr const char *operatorName = "InternvlCrossEntropyBackward";
  static constexpr const char *outputs[] = {"dx: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 0;
  Tensor dy, logits, labels;
  Axes axes;
  static CrossEntropyBackward read([[maybe_unused]] Reader &reader) {
    CrossEntropyBackward s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.dy = reader.input("dy", TF_FLOAT, ".", axes);
    s.logits = reader.input("logits", TF_FLOAT, ".V", axes);
    s.labels = reader.input("labels", TF_INT32, ".", axes);
    return s;
  }
};

struct AdamW {
  static constexpr const char *operatorName = "InternvlAdamW";
  static constexpr const char *outputs[] = {"leaf: N * float", "first: N * float", "second: N * float"};
  static constexpr int groupSize = 4;
  static constexpr int numValues = 7;
  float gradScale;
  float beta1;
  float oneMinusBeta1;
  float beta2;
  float oneMinusBeta2;
  float secondCorrection;
  float eps;
  Tensor rates;
  Axes axes;
  static AdamW read([[maybe_unused]] Reader &reader) {
    AdamW s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.gradScale = reader.readFloat();
    s.beta1 = reader.readFloat();
    s.oneMinusBeta1 = reader.readFloat();
    s.beta2 = reader.readFloat();
    s.oneMinusBeta2 = reader.readFloat();
    s.secondCorrection = reader.readFloat();
    s.eps = reader.readFloat();
    s.rates = reader.input("rates", TF_FLOAT, "NR", axes);
    return s;
  }
};

struct AddPairs {
  static constexpr const char *operatorName = "InternvlAddPairs";
  static constexpr const char *outputs[] = {"y: N * float"};
  static constexpr int groupSize = 2;
  static constexpr int numValues = 0;
  Axes axes;
  static AddPairs read([[maybe_unused]] Reader &reader) {
    AddPairs s{};
    [[maybe_unused]] Axes &axes = s.axes;
    return s;
  }
};

struct GlobalNorm {
  static constexpr const char *operatorName = "InternvlGlobalNorm";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 0;
  Axes axes;
  static GlobalNorm read([[maybe_unused]] Reader &reader) {
    GlobalNorm s{};
    [[maybe_unused]] Axes &axes = s.axes;
    return s;
  }
};

struct ReadTensor {
  static constexpr const char *operatorName = "InternvlReadTensor";
  static constexpr const char *outputs[] = {"y: float"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 4;
  int64_t file;
  int64_t offset;
  int64_t size;
  ::StoredType dtype;
  Axes axes;
  static ReadTensor read([[maybe_unused]] Reader &reader) {
    ReadTensor s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.file = reader.readInt("file");
    s.offset = reader.readInt("offset");
    s.size = reader.readInt("size");
    s.dtype = reader.readEnum<::StoredType>("dtype", 0, 3);
    return s;
  }
};

struct ReadQuantized {
  static constexpr const char *operatorName = "InternvlReadQuantized";
  static constexpr const char *outputs[] = {"y: int32"};
  static constexpr int groupSize = 0;
  static constexpr int numValues = 6;
  int64_t file;
  int64_t offset;
  int64_t rows;
  int64_t columns;
  ::StoredType dtype;
  ::Format format;
  Axes axes;
  static ReadQuantized read([[maybe_unused]] Reader &reader) {
    ReadQuantized s{};
    [[maybe_unused]] Axes &axes = s.axes;
    s.file = reader.readInt("file");
    s.offset = reader.readInt("offset");
    s.rows = reader.readInt("rows");
    s.columns = reader.readInt("columns");
    s.dtype = reader.readEnum<::StoredType>("dtype", 0, 4);
    s.format = reader.readEnum<::Format>("format", 1, 5);
    return s;
  }
};
} // namespace kernels
