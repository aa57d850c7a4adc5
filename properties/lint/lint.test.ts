import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { basenameProblems, commentProblems, folderProblems, lint, nameProblems, vocabularyProblems } from './lint-rules.js'
import { allowed, rules } from './refused-terms.js'

const found = (text: string, path = 'lib/sample.ts'): readonly string[] =>
  vocabularyProblems({ path, text }).map(({ line, message }) => `${line}: ${message.split('"')[1]}`)

describe('vocabulary lint', () => {
  const bad: ReadonlyArray<readonly [text: string, term: string]> = [
    ['const filmFrames = 8', 'film'],
    ['const FILM_SIZE = 8', 'film'],
    ['// the way back through a linear layer', 'way back'],
    ['const wayBack = 1', 'way back'],
    ["throw new RangeError('3 faults in the file')", 'faults'],
    ['/** Slopes of y. */', 'slopes'],
    ['const RNGChance = 0', 'chance'],
    ['import { batchOf } from "x"', 'batchOf'],
    ['| heldOut | a file |', 'held out']
  ]
  for (const [text, term] of bad) it(`refuses ${term} in ${text}`, () => assert.deepEqual(found(text), [`1: ${term}`]))

  const good = [
    'const defaults = { stdout: 1 }',
    'a batch of 4 images',
    'softmax(x)',
    'eyesight',
    'a default fault-free'.slice(0, 9)
  ]
  for (const text of good) it(`accepts ${text}`, () => assert.deepEqual(found(text), []))

  it('accepts a deprecated alias on its own line and below its docstring', () => {
    assert.deepEqual(found('/** @deprecated use collate */\nexport { collate as batchOf }'), [])
    assert.deepEqual(found('export { collate as batchOf }'), ['1: batchOf'])
  })

  it('refuses names of variables that are plain English in prose', () => {
    const refused = [
      'const own = 1',
      'xs.map((each) => each)',
      'for (const each of xs) f()',
      '({ a, kept }) => a',
      'readonly form: string'
    ]
    for (const text of refused) assert.equal(found(text).length, 1, text)
    for (const text of [
      '// each layer',
      'an image of its own',
      'rows are kept',
      'x.form()',
      'const format = 1',
      'forEach((x) => x)'
    ])
      assert.deepEqual(found(text), [], text)
    assert.deepEqual(found('const own = 1', 'lib/a.cc'), [])
  })

  it('accepts a term where the allow-list says so, and only there', () => {
    assert.deepEqual(found('// film grain', 'processors/video/a.ts'), [])
    assert.deepEqual(found('// film grain', 'lib/a.ts'), ['1: film'])
  })

  it('gives every allowed use a reason', () => {
    for (const { reason } of allowed) assert.ok(reason.length > 10)
    assert.equal(new Set(rules.map(({ term }) => term)).size, rules.length)
  })

  it('refuses a file named by a refused term', () =>
    assert.equal(nameProblems({ path: 'processors/video/film.ts', text: '' }).length, 1))

  it('refuses comments that begin with What', () => {
    const problems = (path: string, text: string) => commentProblems({ path, text }).map(({ line }) => line)
    assert.deepEqual(problems('a.ts', '/** What is seen. */\n/**\n * What else.\n */\n// What now\nconst a = "What?"'), [1, 3, 5])
    assert.deepEqual(problems('a.py', '"""What it does."""\nx = 1  # What\nprint("What")'), [1, 2])
    assert.deepEqual(problems('a.cc', '// What\n// Says what'), [1])
    assert.deepEqual(
      problems('a.ts', '/** How long. */\n// It is\n// Its size\n/** Whether so. */\nconst a = 1 // Why'),
      [1, 2, 5]
    )
    assert.deepEqual(problems('a.md', '# What is this'), [])
  })
})

describe('folder lint', () => {
  it('refuses more than 15 source files in a folder, of all extensions', () => {
    const files = (n: number) => Array.from({ length: n }, (_, i) => `lib/a/${i}${i % 2 ? '.ts' : '.cc'}`)
    assert.deepEqual(folderProblems([...files(15), 'lib/a/x.json', 'lib/a/b/y.ts']), [])
    assert.equal(folderProblems(files(16)).length, 1)
  })

  it('refuses two source files of one name, except index.ts and tests', () => {
    assert.deepEqual(basenameProblems(['lib/a/index.ts', 'lib/index.ts', 'lib/rope.ts', 'properties/lib/rope.test.ts']), [])
    assert.deepEqual(basenameProblems(['lib/rope.ts', 'docs/rope.ts']), [])
    assert.match(basenameProblems(['lib/rope.ts', 'models/rope.ts'])[0]!.message, /rope\.ts is also models\/rope\.ts/)
  })

  it('gathers every kind of problem of a bad sample', () => {
    const sample = [
      { path: 'lib/picture.ts', text: '/** What a film is. */' },
      { path: 'models/picture.ts', text: '' }
    ]
    assert.deepEqual(lint(sample).length, 5)
  })
})

it('npm test announces its test files and engine on standard error', () => {
  const script = fileURLToPath(new URL('../test-plan.mjs', import.meta.url))
  const { stdout, stderr } = spawnSync(process.execPath, [script], { encoding: 'utf8', env: { INTERNVL_ENGINE: 'wasm' } })
  assert.deepEqual([stdout, stderr.split('\n').length], ['', 2])
  assert.match(stderr, /^npm test: \d{2,} test files on the wasm engine, about \d+ minutes/)
})
