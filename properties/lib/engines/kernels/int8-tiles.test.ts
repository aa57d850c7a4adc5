import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { type Command, type FailedProcess, runProcess } from '../../../../lib/engines/install/run-process.js'
import { findTool } from '../../../../lib/engines/install/toolchain.js'

const pathOf = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const sources = ['gemm/gemm.cc', 'gemm/gemm-kind.cc', 'gemm/matmul.cc', 'runtime/thread-pool.cc']

describe('GEMM in int8', function () {
  this.timeout(300_000)
  const folder = mkdtempSync(join(tmpdir(), 'int8-tiles-'))
  after(() => rmSync(folder, { recursive: true }))
  const { env } = process
  const right = (result: E.Either<FailedProcess, string>): string =>
    E.isRight(result) ? result.right : assert.fail(`${result.left.status} ${result.left.stderr}`)
  let compiler: Command
  before(async function () {
    const found = await findTool('compiler', env)()
    if (E.isRight(found)) compiler = found.right
    else this.skip()
  })

  it('equals sums in float64 within 0.8 %, and exactly for activations that are levels of int8, with the arithmetic of VNNI without its instruction', async () => {
    const kernels = pathOf('../../../../lib/engines/kernels/cpu')
    const flags = ['-O2', '-std=c++17', '-pthread', '-DINT8_TWIN', process.arch === 'arm64' ? '-mcpu=native' : '-march=native']
    const files = [pathOf('int8_tiles.cc'), ...sources.map((name) => join(kernels, name))]
    const objects = files.map((_, i) => join(folder, `${i}.o`))
    const compile = (file: string, i: number) =>
      runProcess(compiler, [...flags, `-I${kernels}`, '-c', file, '-o', objects[i]!], { env })()
    for (const result of await Promise.all(files.map(compile))) right(result)
    right(await runProcess(compiler, [...flags, ...objects, '-o', join(folder, 'check')], { env })())
    const result = await runProcess([join(folder, 'check')], [], { env: { ...env, TF_NUM_INTRAOP_THREADS: '2' } })()
    assert.match(right(result), /^0 failures$/m)
  })
})
