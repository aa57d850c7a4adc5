import * as assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import * as E from 'fp-ts/lib/Either.js'
import { renderDiagnosis } from '../../../generation/cli/commands/doctor-command.js'
import { type Diagnosis, diagnose, environmentIssues, isSupportedNode, oldestNode } from '../../../lib/engines/doctor.js'
import { type EngineName, engineNames, type Loaders } from '../../../lib/engines/index.js'
import { issue } from '../../../lib/error.js'
import { type Fakes, Workbench } from './fakes.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const missing = [issue('NotSetUp', 'the native engine is not set up', { fix: 'set it up' })] as const
const load = (name: EngineName) => async () => (name === 'native' ? E.left(missing) : E.right({ version: '1', devices: ['CPU'] }))
const loaders = Object.fromEntries(engineNames.map((name) => [name, load(name)])) as unknown as Loaders

describe('doctor', () => {
  const bench = new Workbench()
  after(() => bench.remove())
  const examine = (fakes: Fakes, env: NodeJS.ProcessEnv = {}): Promise<Diagnosis> =>
    diagnose({ env: { ...bench.env(fakes), ...env }, loaders })
  const tags = ({ issues }: Diagnosis): readonly string[] => issues.map(({ _tag }) => _tag)

  it('every error has one command that fixes it, in JSON and in text', async () => {
    const situations: ReadonlyArray<readonly [Fakes, NodeJS.ProcessEnv]> = [
      [{}, {}],
      [{ pip: 'none', compiler: 'none' }, {}],
      [{}, { INTERNVL_ENGINE: 'quick' }],
      [{}, { INTERNVL_ENGINE: 'native' }],
      [{}, { INTERNVL_CUDA: 'perhaps' }]
    ]
    for (const [fakes, env] of situations) {
      const diagnosis = await examine(fakes, env)
      const { issues } = JSON.parse(JSON.stringify(diagnosis)) as Diagnosis
      assert.ok(issues.length > 0)
      for (const { fix } of issues) assert.ok(typeof fix === 'string' && renderDiagnosis(diagnosis).includes(fix))
    }
  })

  it('reports the engine and the reason, and no error for a requested engine', async () => {
    const automatic = await examine({})
    assert.equal(automatic.engine?.name, 'wasm')
    assert.match(automatic.engine?.reason ?? '', /not set up/)
    const requested = await examine({ pip: 'none' }, { INTERNVL_ENGINE: 'wasm' })
    assert.deepEqual([requested.engine?.reason, ...tags(requested)], ['it was requested'])
  })

  it('an old Node, an unwritable cache and an idle GPU are errors', async () => {
    const { issues: _, ...facts } = await examine({}, { INTERNVL_ENGINE: 'cpu' })
    const engine = { name: 'native', version: '2', devices: ['CPU'], reason: '', unavailable: [] } as const
    const found = environmentIssues({
      ...facts,
      engine,
      native: { state: 'intact', variant: 'cuda', folder: '' },
      node: { version: 'v18.0.0', supported: false },
      cache: { folder: '/', bytes: 0, writable: false }
    })
    assert.deepEqual(
      found.map(({ _tag }) => _tag),
      ['OldNode', 'CacheNotWritable', 'IdleGpu']
    )
  })

  it('supports the Node that package.json names, and later ones', () => {
    const { engines } = JSON.parse(readFileSync(`${root}/package.json`, 'utf8')) as {
      readonly engines?: { readonly node?: string }
    }
    if (engines?.node) assert.equal(engines.node, `>=${oldestNode.join('.')}`)
    assert.deepEqual(['v18.20.0', 'v20.18.9', 'v20.19.0', 'v22.0.0', 'v24.1.0'].map(isSupportedNode), [
      false,
      false,
      true,
      true,
      true
    ])
  })

  it('internvl doctor --json prints only JSON on standard output', () => {
    const script = `import('./generation/cli/commands/doctor-command.ts').then(({ doctorCommand }) => doctorCommand().parseAsync(['--json'], { from: 'user' }))`
    const env = { ...process.env, INTERNVL_ENGINE: 'cpu' }
    const { stdout, status } = spawnSync(process.execPath, ['--import', 'tsx', '-e', script], {
      cwd: root,
      env,
      encoding: 'utf8'
    })
    const diagnosis = JSON.parse(stdout) as Diagnosis
    assert.deepEqual([status, diagnosis.engine?.name, diagnosis.node.version, diagnosis.issues], [0, 'cpu', process.version, []])
  })
})
