import * as assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as E from 'fp-ts/lib/Either.js'
import { verifyEngine } from '../../../../lib/engines/install/engine-folder.js'
import { makePrivateFolder, permissionIssue, recordHash, verifyRecordedHash } from '../../../../lib/engines/install/file-trust.js'
import { setup } from '../../../../lib/engines/install/setup-engine.js'
import { findTool } from '../../../../lib/engines/install/toolchain.js'
import { readCudaRequirements } from '../../../../lib/engines/install/unpack.js'
import { getOrThrow, type Issues } from '../../../../lib/error.js'
import { Workbench } from '../fakes.js'

const tags = (result: E.Either<Issues, unknown>): readonly string[] =>
  E.isLeft(result) ? [...new Set(result.left.map(({ _tag }) => _tag))] : []

describe('trust in engine files', () => {
  let bench: Workbench
  beforeEach(() => {
    bench = new Workbench()
  })
  afterEach(() => bench.remove())

  const folder = (): string => join(bench.engines, bench.plan().folder)
  const inEngine = (path: string): string => join(folder(), path)
  /** Writes other bytes of the same length, with the modification time of before. */
  const tamper = (path: string): void => {
    const { atime, mtime } = statSync(path)
    writeFileSync(path, readFileSync(path, 'utf8').toUpperCase())
    utimesSync(path, atime, mtime)
  }

  it('a changed addon of the same size and time is an error at every start', async () => {
    await setup(bench.options())()
    tamper(inEngine('tfjs_binding.node'))
    const verified = await verifyEngine(folder())
    assert.ok(E.isLeft(verified))
    assert.match(verified.left[0].message, /tfjs_binding\.node: its SHA-256 is not the recorded one/)
  })

  it('a large library is hashed again only when its stamp has changed, and the new stamp is recorded', async () => {
    await setup(bench.options())()
    const library = inEngine('tensorflow/libtensorflow_cc.so.2')
    const large = 'x'.repeat(2 << 20)
    writeFileSync(library, large)
    const manifest = JSON.parse(readFileSync(inEngine('manifest.json'), 'utf8'))
    const entry = manifest.files.find(({ path }: { path: string }) => path.endsWith('_cc.so.2'))
    Object.assign(entry, { bytes: large.length, sha256: createHash('sha256').update(large).digest('hex') })
    writeFileSync(inEngine('manifest.json'), JSON.stringify(manifest))
    assert.ok(E.isRight(await verifyEngine(folder()))) // another stamp: hashed, recorded
    const recorded = JSON.parse(readFileSync(inEngine('manifest.json'), 'utf8'))
    const found = recorded.files.find(({ path }: { path: string }) => path === entry.path)
    assert.deepEqual([found.mtimeMs, found.inode], [statSync(library).mtimeMs, statSync(library).ino])
    writeFileSync(library, large.replace('x', 'y'))
    assert.deepEqual(tags(await verifyEngine(folder())), ['DamagedEngine']) // another time: hashed, refused
    utimesSync(library, new Date(found.mtimeMs), new Date(found.mtimeMs))
    assert.deepEqual(tags(await verifyEngine(folder(), { hash: true })), ['DamagedEngine'])
  })

  it('a manifest without stamps, of format 2, still loads', async () => {
    await setup(bench.options())()
    const manifest = JSON.parse(readFileSync(inEngine('manifest.json'), 'utf8'))
    const files = manifest.files.map(({ path, bytes, sha256 }: Record<string, unknown>) => ({ path, bytes, sha256 }))
    writeFileSync(inEngine('manifest.json'), JSON.stringify({ ...manifest, format: 2, files }))
    assert.ok(E.isRight(await verifyEngine(folder())))
  })

  it('a file or folder that others can write is an error with its fix', async () => {
    await setup(bench.options())()
    for (const path of ['', 'tensorflow', 'tensorflow/libtensorflow_cc.so.2', 'tfjs_binding.node', 'manifest.json']) {
      const { mode } = statSync(inEngine(path))
      chmodSync(inEngine(path), mode | 0o002)
      const verified = await verifyEngine(folder())
      assert.deepEqual(tags(verified), ['UnsafeFile'])
      assert.match(E.isLeft(verified) ? verified.left[0].message : '', /other users can write; .*`chmod -R go-w '.*'`/)
      chmodSync(inEngine(path), mode)
      assert.ok(E.isRight(await verifyEngine(folder())))
    }
  })

  it('files belong to the current user or root', () => {
    const mode = 0o755
    assert.equal(permissionIssue('a', { uid: 1000, mode }, 1000), undefined)
    assert.equal(permissionIssue('a', { uid: 0, mode }, 1000), undefined)
    assert.match(permissionIssue("it's", { uid: 1001, mode }, 1000)?.message ?? '', /user 1001.*chown -R 1000 'it'\\''s'/)
    assert.match(permissionIssue('a', { uid: 1000, mode: 0o775 }, 1000)?.message ?? '', /other users can write/)
  })

  it('a set-up makes folders that only the user can enter, and files that only the user can write', async () => {
    await setup(bench.options())()
    for (const path of [join(bench.root, 'cache'), bench.engines, folder()]) assert.equal(statSync(path).mode & 0o777, 0o700)
    assert.equal(statSync(inEngine('tfjs_binding.node')).mode & 0o022, 0)
    const existing = join(bench.root, 'existing')
    mkdirSync(existing, { mode: 0o755 })
    await makePrivateFolder(existing)
    assert.equal(statSync(existing).mode & 0o777, 0o755)
  })

  it('kernels load only with the recorded hash', async () => {
    const library = join(bench.root, 'kernels.node')
    writeFileSync(library, 'kernels')
    assert.deepEqual(tags(await verifyRecordedHash(library)), ['DamagedKernels'])
    await recordHash(library)
    assert.ok(E.isRight(await verifyRecordedHash(library)))
    tamper(library)
    assert.deepEqual(tags(await verifyRecordedHash(library)), ['DamagedKernels'])
  })

  it('an NVIDIA wheel with another hash is an error, and so is one without a pinned hash', async () => {
    const wrong = await setup(bench.options({ pip: 'wrong-nvidia' }, 'cuda'))()
    assert.deepEqual(tags(wrong), ['WrongHash'])
    const plan = { ...bench.plan('cuda'), nvidiaWheels: {} }
    const unpinned = await setup({ ...bench.options({}, 'cuda'), plan })()
    assert.deepEqual(tags(unpinned), ['UnpinnedWheel'])
    assert.ok(!existsSync(join(bench.engines, plan.folder)))
  })

  it('no Python module of the working folder runs', async function () {
    const [pip, python] = [await findTool('pip', process.env)(), await findTool('python', process.env)()]
    if (E.isLeft(pip) || E.isLeft(python)) return this.skip()
    const working = mkdtempSync(join(tmpdir(), 'internvl-working-'))
    for (const name of ['pip', 'zipfile', 'fnmatch'])
      writeFileSync(join(working, `${name}.py`), `open(${JSON.stringify(join(working, 'ran'))}, 'w')\n`)
    const before = process.cwd()
    process.chdir(working)
    try {
      getOrThrow(await findTool('pip', process.env)())
      await readCudaRequirements(python.right, join(working, 'no.whl'), { env: process.env })()
    } finally {
      process.chdir(before)
    }
    assert.ok(!existsSync(join(working, 'ran')))
    rmSync(working, { recursive: true })
  })
})
