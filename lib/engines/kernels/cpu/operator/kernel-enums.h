// Generated from lib/engines/kernels/schema.ts by `npm run build:kernels`. Do not edit.
#pragma once

constexpr char schemaVersion[] = "08685d831e39d4e3";

enum class Activation { none, gelu, geluTanh, quickGelu, silu, relu };
enum class Format { float32, bfloat16, int8, int6, int4 };
enum class StoredType { float32, bfloat16, float16, packed };
enum class GemmKind { unset, float32, bfloat16, amxBfloat16, int16, int8 };
