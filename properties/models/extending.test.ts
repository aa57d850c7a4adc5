import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { applyDiff, diffsOf } from './extending/apply-diffs.js'

const root = fileURLToPath(new URL('../../', import.meta.url))
const run = promisify(execFile)

/** Copies the source with all diffs of docs/extending.md applied, and runs `test` on the copy. */
const inExtendedCopy = async (test: (folder: string) => Promise<void>): Promise<void> => {
  const folder = await mkdtemp(join(tmpdir(), 'extending-'))
  try {
    for (const name of ['lib', 'models', 'processors', 'generation', 'properties', 'package.json', 'tsconfig.json'])
      await cp(join(root, name), join(folder, name), { recursive: true })
    await symlink(join(root, 'node_modules'), join(folder, 'node_modules'))
    for (const diff of diffsOf(await readFile(join(root, 'docs/extending.md'), 'utf8'))) await applyDiff(folder, diff)
    await test(folder)
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

/** Runs a Node program in the folder; the assertion shows its output. */
const node = async (folder: string, args: readonly string[]): Promise<string> => {
  const failed = (error: { stdout?: string; stderr?: string }) => assert.fail(`${args.join(' ')}\n${error.stdout}${error.stderr}`)
  const { stdout } = await run(process.execPath, args, { cwd: folder, maxBuffer: 2 ** 26 }).catch(failed)
  return stdout
}

describe('adding a decoder, a vision tower and a model type', function () {
  this.timeout(300_000)

  it('by the diffs of docs/extending.md compiles, passes the laws of a decoder, is saved and loaded, and generates', () =>
    inExtendedCopy(async (folder) => {
      const files = ['models/index.ts', 'models/decoders/toy.ts', 'models/internvl/toy-tower.ts', 'models/internvl/toy-family.ts']
      await writeFile(join(folder, 'tsconfig.toy.json'), JSON.stringify({ extends: './tsconfig.json', include: [], files }))
      await node(folder, ['node_modules/typescript/bin/tsc', '-p', 'tsconfig.toy.json'])
      const mocha = [
        '--no-config',
        '--file',
        './properties/seed.ts',
        '--timeout',
        '120000',
        'properties/models/extending/toy-laws.ts'
      ]
      const imports = ['--import', 'tsx', '--import', './properties/setup.ts']
      const output = await node(folder, [...imports, 'node_modules/mocha/bin/mocha.js', ...mocha])
      assert.match(output, /passing/)
    }))
})
