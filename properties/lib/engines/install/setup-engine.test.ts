import * as assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import type { SetupProgress } from '../../../../lib/engines/install/build-engine.js'
import { verifyEngine } from '../../../../lib/engines/install/engine-folder.js'
import { type SetupOptions, setup } from '../../../../lib/engines/install/setup-engine.js'
import { type Fakes, Workbench } from '../fakes.js'

const childFile = fileURLToPath(new URL('./setup-child.ts', import.meta.url))

describe('setup', () => {
  let bench: Workbench
  beforeEach(() => {
    bench = new Workbench()
  })
  afterEach(() => bench.remove())

  const state = async (options: SetupOptions): Promise<string> => {
    const result = await setup(options)()
    return E.isRight(result) ? result.right.state : result.left.map(({ _tag }) => _tag).join(' ')
  }
  const message = async (options: SetupOptions): Promise<string> => {
    const result = await setup(options)()
    return E.isLeft(result) ? result.left.map((issue) => issue.message).join('\n') : ''
  }
  const left = (): readonly string[] => (existsSync(bench.engines) ? readdirSync(bench.engines) : [])
  const engine = (): string => join(bench.engines, bench.plan().folder)
  const until = async (condition: () => boolean): Promise<void> => {
    for (let i = 0; i < 200 && !condition(); i++) await sleep(50)
    assert.ok(condition(), 'the condition did not hold within 10 s')
  }
  const child = (pip: 'ok' | 'slow'): ChildProcess & { readonly output: Promise<string> } => {
    const started = spawn(process.execPath, ['--import', 'tsx', childFile, bench.root, pip], {
      stdio: ['ignore', 'pipe', 'inherit']
    })
    let text = ''
    started.stdout.on('data', (chunk) => {
      text += chunk
    })
    return Object.assign(started, { output: once(started, 'close').then(() => text.trim()) })
  }

  it('builds the engine, keeps only the files that run, and does nothing the second time', async () => {
    const steps = new Set<SetupProgress['step']>()
    assert.equal(await state({ ...bench.options(), onProgress: ({ step }) => steps.add(step) }), 'made')
    assert.deepEqual(left(), [bench.plan().folder])
    const files = (readdirSync(engine(), { recursive: true }) as string[]).sort()
    const libraries = ['tensorflow/libtensorflow_cc.so.2', 'tensorflow/libtensorflow_framework.so.2']
    assert.deepEqual(files, ['environment.node', 'manifest.json', 'tensorflow', ...libraries, 'tfjs_binding.node'])
    assert.deepEqual([...steps], ['download', 'unpack', 'compile', 'check'])
    assert.ok(E.isRight(await verifyEngine(engine(), { hash: true })))
    assert.equal(await state(bench.options()), 'ready')
    assert.equal(bench.downloads().length, 1)
  })

  it('builds an engine with an addon of an earlier version again; such an engine loads meanwhile', async () => {
    assert.equal(await state(bench.options()), 'made')
    const file = join(engine(), 'manifest.json')
    const { addon, ...earlier } = JSON.parse(readFileSync(file, 'utf8')) as { readonly addon: number }
    writeFileSync(file, JSON.stringify(earlier))
    assert.ok(E.isRight(await verifyEngine(engine())))
    assert.equal(await state(bench.options()), 'made')
    assert.equal(JSON.parse(readFileSync(file, 'utf8')).addon, addon)
  })

  it("installs the NVIDIA wheels that TensorFlow's metadata names, for CUDA", async () => {
    assert.equal(await state(bench.options({}, 'cuda')), 'made')
    assert.deepEqual(
      bench.downloads().map(({ names }) => names),
      ['tensorflow==9', 'nvidia-cublas-cu12==12.5.3.2']
    )
    const folder = join(bench.engines, bench.plan('cuda').folder)
    assert.equal(readFileSync(join(folder, 'nvidia/cublas/lib/libcublas.so.12'), 'utf8'), 'cublas')
    assert.ok(!existsSync(join(folder, 'nvidia/cublas/include')))
  })

  const failures: ReadonlyArray<readonly [title: string, fakes: Fakes, tag: string, expected: RegExp]> = [
    ['no compiler', { compiler: 'none' }, 'MissingTool', /C\+\+ compiler is missing; install it with `.+`/],
    ['no pip', { pip: 'none' }, 'MissingTool', /pip is missing; install it with `.+`/],
    [
      'neither pip nor compiler',
      { pip: 'none', compiler: 'none' },
      'MissingTool MissingTool',
      /pip is missing.*\n.*compiler is missing/
    ],
    ['no network', { pip: 'offline' }, 'DownloadFailed', /no route to the index.*`.*setup`/],
    ['another wheel than the pinned one', { pip: 'wrong' }, 'WrongHash', /tensorflow 9.*SHA-256 [0-9a-f]{64}.*`pip config list`/],
    ['a compiler that is too old', { compiler: 'broken' }, 'CompileFailed', /g\+\+ could not compile.*no C\+\+17.*`.+`/]
  ]
  for (const [title, fakes, tag, expected] of failures)
    it(`${title}: the message names the command that helps, and no file is left behind`, async () => {
      assert.equal(await state(bench.options(fakes)), tag)
      assert.match(await message(bench.options(fakes)), expected)
      assert.deepEqual(left(), [])
      assert.equal(await state(bench.options()), 'made')
    })

  it('a disk too small is an error before the first download', async () => {
    const options = bench.options()
    const plan = { ...bench.plan(), wheel: { ...bench.plan().wheel, bytes: 1e18 } }
    assert.match(await message({ ...options, plan }), /needs 4500000000\.0 GB of disk, .* is free.*INTERNVL_CACHE/)
    assert.deepEqual([...left(), ...bench.downloads()], [])
  })

  it('an addon that does not load is never published', async () => {
    const { checkAddon: _, ...options } = bench.options()
    assert.equal(await state(options), 'BrokenEngine') // the fake compiler writes a text file
    assert.deepEqual(left(), [])
  })

  it('a damaged engine is detected by its sizes and built again', async () => {
    await setup(bench.options())()
    truncateSync(join(engine(), 'tensorflow/libtensorflow_cc.so.2'), 3)
    const verified = await verifyEngine(engine())
    assert.ok(E.isLeft(verified) && verified.left.length === 1 && /3 bytes, 11 were set up/.test(verified.left[0].message))
    assert.equal(await state(bench.options()), 'made')
    assert.ok(E.isRight(await verifyEngine(engine(), { hash: true })))
    assert.deepEqual(left(), [bench.plan().folder])
  })

  it('a cancelled set-up is an error and leaves no file', async () => {
    const abort = new AbortController()
    const running = state({ ...bench.options({ pip: 'slow' }), signal: abort.signal })
    await until(() => bench.downloads().length === 1)
    abort.abort()
    assert.equal(await running, 'Cancelled')
    assert.deepEqual(left(), [])
  })

  it('a killed set-up leaves no engine, and the next one removes its files and finishes', async () => {
    const killed = child('slow')
    await until(() => bench.downloads().length === 1)
    killed.kill('SIGKILL')
    await killed.output
    process.kill(bench.downloads()[0]?.pid as number, 'SIGKILL')
    assert.ok(left().some((name) => name.includes('.staging-')))
    assert.ok(!existsSync(engine()))
    assert.equal(await state(bench.options()), 'made')
    assert.deepEqual(left(), [bench.plan().folder])
  })

  it('of two processes at once, one builds the engine and the other waits', async () => {
    const [first, second] = [child('ok'), child('ok')]
    assert.deepEqual([await first.output, await second.output].sort(), ['made', 'ready'])
    assert.equal(bench.downloads().length, 1)
    assert.deepEqual(left(), [bench.plan().folder])
  })

  it('three set-ups at once in one process download once', async () => {
    const states = await Promise.all([1, 2, 3].map(() => state(bench.options())))
    assert.deepEqual(states.sort(), ['made', 'ready', 'ready'])
    assert.equal(bench.downloads().length, 1)
  })
})
