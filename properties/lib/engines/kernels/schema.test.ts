import * as assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { headers } from '../../../../lib/engines/kernels/generate-header.js'
import { openLibrary } from '../../../../lib/engines/kernels/register.js'
import {
  enumAliases,
  enums,
  enumTypes,
  kernels,
  parts,
  type Signature,
  schemaVersion
} from '../../../../lib/engines/kernels/schema.js'
import { activationNames } from '../../../../lib/nn/activation.js'

const cpu = (path: string) => new URL(`../../../../lib/engines/kernels/cpu/${path}`, import.meta.url)

describe('schema of kernel parameters', () => {
  it('the committed headers are those that the schema generates: otherwise run `npm run build:kernels`', () => {
    for (const [path, text] of Object.entries(headers())) assert.equal(readFileSync(cpu(path), 'utf8'), text, path)
  })

  it('formats and axes refer to parameters of the same signature; a default refers to an earlier parameter', () => {
    for (const [name, signature] of Object.entries({ ...kernels, ...parts } as Readonly<Record<string, Signature>>)) {
      const parameters = Object.keys(signature.parameters ?? {})
      for (const axis of Object.values(signature.axes ?? {})) assert.ok(parameters.includes(axis), `${name}: ${axis}`)
      for (const { format } of Object.values(signature.inputs ?? {}))
        if (format) assert.ok(parameters.includes(format.replace(/\[\d+\]$/, '')), `${name}: ${format}`)
    }
  })

  it('enum types are ranges of enums, aliases name values, every activation of lib/nn has a number', () => {
    for (const { of, first, count } of Object.values(enumTypes)) assert.ok(first + count <= enums[of].length)
    for (const [name, aliases] of Object.entries(enumAliases))
      for (const value of Object.values(aliases))
        assert.ok((enums[name as keyof typeof enums] as readonly string[]).includes(value))
    const known: readonly string[] = [...enums.Activation, ...Object.keys(enumAliases.Activation)]
    for (const name of activationNames) assert.ok(known.includes(name), name)
  })

  it('a library of another version is refused with the command that compiles it again', () => {
    const path = join(mkdtempSync(join(tmpdir(), 'internvl-')), 'library.cjs')
    const write = (version: string) =>
      writeFileSync(path, `module.exports = { parameters: new Float64Array(1), version: '${version}' }`)
    write('0123456789abcdef')
    assert.throws(
      () => openLibrary(path),
      /version 0123456789abcdef of the kernel parameters, this package needs [0-9a-f]{16}; .*setup/
    )
    const other = join(mkdtempSync(join(tmpdir(), 'internvl-')), 'library.cjs')
    writeFileSync(other, `module.exports = { parameters: new Float64Array(1), version: '${schemaVersion}' }`)
    assert.equal(openLibrary(other).version, schemaVersion)
  })
})
