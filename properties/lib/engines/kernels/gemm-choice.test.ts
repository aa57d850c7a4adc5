import assert from 'node:assert/strict'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { selectEngine } from '../../../../lib/engines/index.js'
import { chooseGemmKinds, chosenKind, gemmChoices, measureGemm } from '../../../../lib/engines/kernels/gemm-choice.js'
import { kernelsInUse } from '../../../../lib/engines/kernels/register.js'
import { changeKernelSettings, gemmKindOf, gemmKinds, gemmKindsFor, withKernelSettings } from '../../../../lib/engines/kernels/settings.js' // biome-ignore format: one line

describe('choice of the arithmetic of matrix products', () => {
  const library = join(mkdtempSync(join(tmpdir(), 'gemm-')), 'kernels.node')
  const table = `${library}.gemm.json`
  before(async function () {
    if ((await selectEngine()).name !== 'native' || kernelsInUse().length === 0) this.skip()
  })

  const unchanged = async (f: () => Promise<void>): Promise<void> => {
    const before = (['bfloat16', 'int8', 'int6', 'int4', 'attention'] as const).map(
      (format) => [format, gemmKindOf(format)] as const
    )
    await f()
    for (const [format, kind] of before) if (kind) changeKernelSettings({ gemmKinds: { [format]: kind } })
  }

  it('the measurement has a speed for every kind of every format with a choice', () => {
    for (const [format, speeds] of Object.entries(measureGemm())) {
      assert.deepEqual(Object.keys(speeds), gemmKindsFor(format as 'int8'))
      assert.ok(Object.values(speeds).every((gflops) => gflops > 0))
    }
  })

  it('the table is kept beside the library, read again, and measured again if it is damaged', () =>
    unchanged(async () => {
      assert.deepEqual(await chooseGemmKinds(library, {}), [])
      assert.ok(existsSync(table))
      const fake = Object.fromEntries(
        (['bfloat16', 'int8', 'int6', 'int4', 'attention'] as const).map((format) => [
          format,
          Object.fromEntries(gemmKindsFor(format).map((kind, i) => [kind, 100 - i]))
        ])
      )
      writeFileSync(table, JSON.stringify(fake))
      await chooseGemmKinds(library, {})
      for (const { product, kind, gflops } of gemmChoices(library)) {
        assert.equal(kind, 'float32', `${product}: the most exact of the fastest`)
        assert.deepEqual(gflops, fake[product as 'int8'])
      }
      copyFileSync(table, `${table}.good`)
      for (const damaged of ['', '{', '{}', '{"int8":{"float32":"fast"}}']) {
        writeFileSync(table, damaged)
        assert.deepEqual(await chooseGemmKinds(library, {}), [])
        if (gemmKindsFor('int8').length > 1) assert.notEqual(readFileSync(table, 'utf8'), damaged)
      }
    }))

  it('INTERNVL_KERNEL forces a kind where the format has it; an unknown name is an issue that lists the known ones', () =>
    unchanged(async () => {
      for (const kind of gemmKinds()) {
        assert.deepEqual(await chooseGemmKinds(library, { INTERNVL_KERNEL: kind }), [])
        for (const format of ['bfloat16', 'int8', 'int6', 'int4', 'attention'] as const)
          if (gemmKindsFor(format).includes(kind)) assert.equal(gemmKindOf(format), kind)
      }
      const [found] = await chooseGemmKinds(library, { INTERNVL_KERNEL: 'int3' })
      assert.match(found!.message, /INTERNVL_KERNEL=int3: this processor can run float32/)
    }))

  it('settings hold for the time of a call, also if the call throws', () => {
    const before = gemmKindOf('int8')
    assert.throws(() =>
      withKernelSettings({ gemmKinds: { int8: 'float32' } }, () => {
        assert.equal(gemmKindOf('int8'), 'float32')
        throw new Error('stop')
      })
    )
    assert.equal(gemmKindOf('int8'), before)
  })

  it('the chosen kind is the most exact one among the fastest', () => {
    assert.equal(chosenKind({ float32: 1, int16: 2 }), 'int16')
    assert.equal(chosenKind({ float32: 100, amxBfloat16: 279, int16: 150, int8: 300 }), 'amxBfloat16')
    assert.equal(chosenKind({ float32: 100, amxBfloat16: 269, int16: 150, int8: 300 }), 'int8')
    assert.equal(chosenKind({}), undefined)
  })
})
