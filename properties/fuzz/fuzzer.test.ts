import assert from 'node:assert/strict'
import fc from 'fast-check'
import { InternVLError } from '../../lib/error.js'
import { ShapeError } from '../../lib/shape.js'
import { type CorpusEntry, corpusText, parseEntry } from './corpus.js'
import { fuzz, inputAt } from './fuzzer.js'
import { kindNamed, kinds } from './kinds/index.js'
import type { Planted } from './kinds/planted-kind.js'
import { isDocumented } from './verdict.js'
import { watchedChild } from './watched-child.js'

const limits = { cpuSeconds: 6, wallSeconds: 20, megabytes: 150 }

describe('the fuzzer', function () {
  this.timeout(180_000)
  const child = watchedChild(limits)
  after(() => child.close())
  const outcome = async (planted: Planted) => (await child.run({ kind: 'planted', input: { list: [planted] } })).outcome

  const expected = {
    nothing: 'accepted',
    'range error': 'refused',
    'type error': 'error',
    'late error': 'error',
    nan: 'nan',
    leak: 'leak',
    crash: 'crash',
    hang: 'hang',
    memory: 'memory',
    silence: 'hang'
  } as const satisfies Record<Planted, string>
  const onLinux: readonly Planted[] = ['hang', 'memory']
  for (const [planted, verdict] of Object.entries(expected) as [Planted, string][])
    it(`reports ${verdict} for ${planted}, and goes on`, async function () {
      if (process.platform !== 'linux' && onLinux.includes(planted)) this.skip()
      assert.equal(await outcome(planted), verdict)
      assert.equal(await outcome('nothing'), 'accepted')
    })

  it('finds a planted error, makes its input smaller, and counts inputs', async () => {
    const findings: CorpusEntry[] = []
    const tallies = await fuzz({ seed: 1, kinds: [kindNamed('planted')], isDone: (n) => n >= 40, children: 1, limits, onFinding: (finding) => findings.push(finding) }) // biome-ignore format: one line
    const { inputs, accepted, findings: found } = tallies.get('planted')!
    assert.deepEqual([inputs, accepted + found, findings.length], [40, 40, 1])
    assert.deepEqual(findings[0]!.input, { list: ['type error'] })
    assert.match(findings[0]!.detail, /^TypeError/)
  })

  it('samples the same inputs for the same seed, and others for another', () => {
    for (const kind of kinds) {
      const inputs = (seed: number) => Array.from({ length: 5 }, (_, i) => inputAt(kind, seed, i))
      assert.deepEqual(inputs(1), inputs(1), kind.name)
      assert.notDeepEqual(inputs(1), inputs(2), kind.name)
    }
  })

  it('writes inputs of every kind as JSON and reads them back', () => {
    for (const kind of kinds)
      for (let i = 0; i < 20; i++) {
        const entry: CorpusEntry = {
          kind: kind.name,
          problem: 'error',
          detail: '',
          seed: 1,
          index: i,
          input: inputAt(kind, 1, i)
        }
        assert.deepEqual(parseEntry(corpusText(entry)), structuredClone(entry)) // fast-check's records have no prototype
      }
    fc.assert(fc.property(fc.double(), (x) => Object.is(parseEntry(corpusText({ input: x } as CorpusEntry)).input, x)))
  })

  it('knows documented errors from errors of JavaScript and Node.js', () => {
    const thrown = (call: () => unknown): unknown => {
      try {
        return call()
      } catch (error) {
        return error
      }
    }
    const recursion = (): number => recursion() + 1
    const leaked = [
      () => new Array(-1),
      () => 'a'.repeat(-1),
      recursion,
      () => Buffer.alloc(1).readUInt32LE(9),
      () => new Float32Array(-1)
    ]
    for (const call of leaked) assert.equal(isDocumented(thrown(call)), false, String(thrown(call)))
    for (const error of [
      new RangeError('size: expected 1'),
      new ShapeError('x'),
      new InternVLError([{ _tag: 'A', message: 'a' }])
    ])
      assert.equal(isDocumented(error), true)
    for (const error of [new TypeError('x'), new Error('x'), 'x', new InternVLError([{ _tag: 'A', message: '' }])])
      assert.equal(isDocumented(error), false)
  })
})
