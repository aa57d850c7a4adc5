import * as assert from 'node:assert/strict'
import * as fc from 'fast-check'
import * as E from 'fp-ts/lib/Either.js'
import { chooseEngine, type EngineName, engineNames, type Loaders, selectEngine } from '../../../lib/engines/index.js'
import { createSelector } from '../../../lib/engines/select.js'
import { issue } from '../../../lib/error.js'
import { tf } from '../../../lib/tf.js'

/** Loaders that succeed for `present` and fail for the others; the names are appended to `tried`. */
const fakeLoaders = (present: readonly EngineName[], tried: EngineName[]): Loaders => {
  const loader = (name: EngineName) => async () => {
    tried.push(name)
    return present.includes(name)
      ? E.right({ version: '1', devices: ['CPU'] })
      : E.left([issue('Missing', `${name} is missing`)] as const)
  }
  return { native: loader('native'), wasm: loader('wasm'), cpu: loader('cpu') } as Loaders
}

describe('kernels that the environment names', () => {
  it('are refused where the engine has none of that name', async () => {
    const wrong = issue('UnknownKernel', 'INTERNVL_KERNEL=foo: this processor can run float32')
    const native = async () => E.right({ version: '1', devices: ['CPU'], issues: [wrong, issue('Slow', 'slow')] })
    const select = createSelector({ ...fakeLoaders(['cpu'], []), native })
    await assert.rejects(select(), { name: 'InternVLError', message: wrong.message })
  })
})

describe('chooseEngine', () => {
  const present = fc.subarray([...engineNames])
  const asked = fc.option(fc.constantFrom(...engineNames), { nil: undefined })

  it('selects the first engine that loads, tries no slower one, and reports why no faster one', async () => {
    await fc.assert(
      fc.asyncProperty(present, asked, async (names, forced) => {
        const tried: EngineName[] = []
        const result = await chooseEngine(fakeLoaders(names, tried))(forced)
        const candidates = forced ? [forced] : engineNames
        const expected = candidates.find((name) => names.includes(name))
        const before = expected ? candidates.slice(0, candidates.indexOf(expected)) : candidates
        assert.deepEqual(tried, expected ? [...before, expected] : before)
        const refused = E.isRight(result) ? result.right.unavailable : result.left
        assert.equal(E.isRight(result) ? result.right.name : undefined, expected)
        const isForced = forced !== undefined && expected === undefined
        assert.deepEqual(
          refused.slice(0, before.length).map(({ message }) => message),
          before.map((name) => `${name} is missing`)
        )
        const offer = refused.slice(before.length).map(({ message }) => message)
        assert.equal(offer.length, Number(isForced))
        for (const name of isForced ? (['wasm', 'cpu'] as const) : []) assert.equal(offer[0]!.includes(name), true)
      })
    )
  })

  it('an unknown engine is an error that lists the known names, and no engine is loaded', async () => {
    const unknown = fc.string({ minLength: 1 }).filter((name) => !engineNames.some((known) => known === name))
    await fc.assert(
      fc.asyncProperty(unknown, async (name) => {
        const tried: EngineName[] = []
        const result = await chooseEngine(fakeLoaders(engineNames, tried))(name)
        assert.ok(E.isLeft(result) && result.left[0].message.includes(JSON.stringify(name)))
        for (const known of engineNames) assert.ok(result.left[0].message.includes(known))
        assert.deepEqual(tried, [])
      })
    )
  })
})

describe('selectEngine', () => {
  it('repeated and concurrent calls return the current engine', async () => {
    const [first, ...others] = await Promise.all([selectEngine(), selectEngine(), selectEngine()])
    for (const other of others) assert.equal(other, first)
    assert.equal(tf.getBackend(), { native: 'tensorflow', wasm: 'wasm', cpu: 'cpu' }[first.name])
  })

  it('a forced engine becomes the current one, and the first can be selected again', async () => {
    const { name } = await selectEngine()
    assert.equal((await selectEngine({ engine: 'cpu' })).name, 'cpu')
    assert.equal(tf.getBackend(), 'cpu')
    assert.equal((await selectEngine({ engine: name })).name, name)
  })

  it('an invalid number of threads is a RangeError', async () => {
    const { name } = await selectEngine()
    const other = name === 'cpu' ? 'wasm' : 'cpu'
    for (const threads of [0, -1, 1.5, Number.NaN]) await assert.rejects(selectEngine({ engine: other, threads }), RangeError)
    await selectEngine({ engine: name })
  })
})
