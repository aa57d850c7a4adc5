// Run by `npm run build:kernels`: writes the C++ headers of the kernels' parameters from schema.ts.
import { writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import {
  enums,
  enumTypes,
  type Input,
  type Kernel,
  kernels,
  type Parameter,
  parts,
  type Relation,
  type Signature,
  schemaVersion
} from './schema.js'

const notice = '// Generated from lib/engines/kernels/schema.ts by `npm run build:kernels`. Do not edit.\n#pragma once\n'

/** cpu/operator/kernel-enums.h: enum types, and the version of the schema. */
const enumsHeader = (): string => {
  const types = Object.entries(enums).map(([name, values]) => `enum class ${name} { ${values.join(', ')} };`)
  return `${notice}\nconstexpr char schemaVersion[] = "${schemaVersion}";\n\n${types.join('\n')}\n`
}

/** A shape in the compact notation of axes.h: `.` for leading axes, without spaces. */
const compact = (shape: string): string => shape.replaceAll('...', '.').replaceAll(' ', '')

const isAxis = (name: string): boolean => /^[A-Z]$/.test(name)
const term = (name: string): string => (isAxis(name) ? `axes['${name}']` : `s.${name}`)

const relation = ([kind, ...names]: Relation): string => {
  const [a = '', b = '', c = ''] = names
  const [x, y] = [term(a), b && term(b)]
  if (kind === 'divides') return `require(${x} > 0 && ${y} % ${x} == 0, "${a} must be positive and divide ${b}");`
  if (kind === 'oneOr') return `require(${x} < 0 || ${x} == 1 || ${x} == ${y}, "${a} must be 1 or ${b}");`
  if (kind === 'even') return `require(${x} % 2 == 0, "${a} must be even");`
  if (kind === 'sum') return `require(axes.bind('${a}', ${y} + ${term(c)}), "${a} must be ${b} + ${c}");`
  return `require(${c ? `!s.${c} || ` : ''}${x} <= ${y}, "${a} must be at most ${b}");`
}

const typeOf = ({ type }: Parameter): string => {
  if (type === 'float' || type === 'bool') return type
  return type === 'int' ? 'int64_t' : `::${enumTypes[type].of}`
}

const readOf = (name: string, { type }: Parameter): string => {
  if (type === 'float') return 'reader.readFloat()'
  if (type === 'int') return `reader.readInt("${name}")`
  if (type === 'bool') return 'reader.readBool()'
  const { of, first, count } = enumTypes[type]
  return `reader.readEnum<::${of}>("${name}", ${first}, ${first + count})`
}

const parameterField = ([name, parameter]: readonly [string, Parameter]): string =>
  `  ${typeOf(parameter)} ${name}${parameter.count ? `[${parameter.count}]` : ''};`

const parameterRead = ([name, parameter]: readonly [string, Parameter]): string =>
  parameter.count
    ? `    for (auto &each : s.${name}) each = ${readOf(name, parameter)};`
    : `    s.${name} = ${readOf(name, parameter)};`

const inputRead = ([name, { dtype, shape, format, transposed, optional }]: readonly [string, Input]): string => {
  const [type, pattern] = [dtype === 'int32' ? 'TF_INT32' : 'TF_FLOAT', compact(shape)]
  const read = format
    ? `reader.weight("${name}", s.${format}, "${pattern}", axes${transposed ? `, ::Format::${transposed}` : ''})`
    : `reader.input("${name}", ${type}, "${pattern}", axes)`
  return `    ${optional ? `if (has_${name}) ` : ''}s.${name} = ${read};`
}

/** A struct with a field for each parameter and input, and a function that reads and checks them. */
const struct = (
  name: string,
  signature: Signature & Partial<Pick<Kernel, 'operator' | 'outputs' | 'part' | 'groupSize'>>
): string => {
  const { parameters = {}, inputs = {}, axes = {}, relations = [], groupSize = 0 } = signature
  const names = Object.keys(inputs)
  const flags = Object.entries(inputs).filter(([, input]) => input.optional)
  const outputs = Object.entries(signature.outputs ?? {}).map(
    ([output, dtype]) => `"${output}: ${groupSize > 0 ? 'N * ' : ''}${dtype === 'int32' ? 'int32' : 'float'}"`
  )
  const reads = [
    ...Object.entries(parameters).map(parameterRead),
    ...flags.map(([input]) => `    const bool has_${input} = reader.readBool();`),
    ...Object.entries(axes).map(
      ([axis, parameter]) =>
        `    require(s.${parameter} == 0 || axes.bind('${axis}', s.${parameter}), "${parameter} must be ${axis}");`
    ),
    ...Object.entries(inputs).map(inputRead),
    ...relations.map((item) => `    ${relation(item)}`)
  ]
  const lines = [
    `struct ${name} {`,
    ...(signature.outputs
      ? [
          `  static constexpr const char *operatorName = "Internvl${signature.operator ?? name}";`,
          `  static constexpr const char *outputs[] = {${outputs.join(', ')}};`,
          `  static constexpr int groupSize = ${groupSize};`
        ]
      : []),
    `  static constexpr int numValues = ${Object.values(parameters).reduce((sum, { count = 1 }) => sum + count, 0) + flags.length};`,
    ...Object.entries(parameters).map(parameterField),
    ...(names.length > 0 ? [`  Tensor ${names.join(', ')};`] : []),
    ...(signature.part ? [`  ${signature.part} part;`] : []),
    ...(signature.outputs ? ['  Axes axes;'] : []),
    `  static ${name} read(${signature.outputs ? '[[maybe_unused]] Reader &reader' : 'Reader &reader, Axes &axes'}) {`,
    `    ${name} s{};`,
    ...(signature.outputs ? ['    [[maybe_unused]] Axes &axes = s.axes;'] : []),
    ...reads,
    ...(signature.part ? [`    s.part = ${signature.part}::read(reader, axes);`] : []),
    '    return s;',
    '  }',
    '};'
  ]
  return lines.join('\n')
}

/** cpu/operator/kernel-parameters.h: one struct for each operator, and for each part of one. */
const parametersHeader = (): string => {
  const operators = new Map<string, Kernel>()
  for (const [name, kernel] of Object.entries<Kernel>(kernels)) operators.set(kernel.operator ?? name, kernel)
  const structs = [
    ...Object.entries<Signature>(parts).map(([name, part]) => struct(name, part)),
    ...[...operators].map(([name, kernel]) => struct(name, kernel))
  ]
  return `${notice}#include "operator/reader.h"\n\nnamespace kernels {\n${structs.join('\n\n')}\n} // namespace kernels\n`
}

/** The generated files by their path below cpu. */
export const headers = (): Readonly<Record<string, string>> => ({
  'operator/kernel-enums.h': enumsHeader(),
  'operator/kernel-parameters.h': parametersHeader()
})

if (process.argv[1] === fileURLToPath(import.meta.url))
  for (const [path, text] of Object.entries(headers())) writeFileSync(new URL(`cpu/${path}`, import.meta.url), text)
