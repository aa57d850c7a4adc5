#include "gemm/gemm-kind.h"
#include "gemm/tiles/int16-tiles.h"
#include "gemm/tiles/int8-tiles.h"
#include "operator/kernel-settings.h"

namespace {
bool hasAmx() {
#if defined(HAS_AMX)
  return AmxBfloat16Tiles::isPermitted();
#else
  return false;
#endif
}
} // namespace

bool isAvailable(GemmKind kind, Format format) {
  switch (kind) {
    case GemmKind::unset: return false;
    case GemmKind::float32: return true;
    case GemmKind::bfloat16: return hasBfloat16 && format != Format::float32;
    case GemmKind::amxBfloat16: return format != Format::float32 && hasAmx();
    case GemmKind::int16: return hasInt16 && isBlockwise(format);
    case GemmKind::int8: return hasInt8 && isBlockwise(format);
  }
  return false;
}

GemmKind gemmKind(Format format) {
  const KernelSettings &settings = kernelSettings();
  if (format == Format::float32 || settings.float32Activations) return GemmKind::float32;
  const GemmKind chosen = static_cast<GemmKind>(static_cast<int>(settings.gemmKinds[static_cast<int>(format)]));
  if (isAvailable(chosen, format)) return chosen;
  for (const GemmKind kind : {GemmKind::amxBfloat16, GemmKind::int8, GemmKind::int16, GemmKind::bfloat16})
    if (isAvailable(kind, format)) return kind;
  return GemmKind::float32;
}

GemmKind attentionKind() {
  const KernelSettings &settings = kernelSettings();
  if (settings.float32Activations) return GemmKind::float32;
  const GemmKind chosen = static_cast<GemmKind>(static_cast<int>(settings.attentionKind));
  for (const GemmKind kind : {chosen, GemmKind::amxBfloat16, GemmKind::int8})
    if (isAvailable(kind, Format::int8)) return kind;
  return GemmKind::float32;
}

std::string gemmKindNames() {
  std::string names = "float32";
  if (hasBfloat16) names += " bfloat16";
  if (hasAmx()) names += " amxBfloat16";
  if (hasInt16) names += " int16";
  if (hasInt8) names += " int8";
  return names;
}
