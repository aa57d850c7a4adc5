import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Command } from 'commander'
import ts from 'typescript'
import { program } from '../../generation/cli/program.js'
import { readDataset } from '../../generation/evaluate/eval-dataset.js'
import { readMixture } from '../../generation/train/data/mixture.js'
import { readTrainConfig } from '../../generation/train/train-config.js'
import { orThrow } from '../../lib/error.js'
import { benchCommand } from '../bench/flags.js'
import { type Block, blocksOf, commandsOf, programsOf, readBlocks, writePrograms } from './doc-blocks.js'

const root = fileURLToPath(new URL('../..', import.meta.url))
const { scripts } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
const blocks = readBlocks()

/** The same command without actions: parsing checks arguments and options. */
const inert = (command: Command): Command => {
  command.exitOverride().configureOutput({ writeErr: () => {}, writeOut: () => {} })
  for (const sub of command.commands) inert(sub)
  return command.commands.length > 0 ? command : command.action(() => {})
}

const parse = async (command: Command, words: readonly string[]): Promise<void> => {
  try {
    await inert(command).parseAsync([...words], { from: 'user' })
  } catch (error) {
    const { code, message } = error as { readonly code?: string; readonly message: string }
    if (code !== 'commander.helpDisplayed' && code !== 'commander.version' && code !== 'commander.help') throw new Error(message)
  }
}

/** Checks one command: `internvl` and `npm run bench` by their parsers, other npm scripts by name. */
const checkCommand = async (words: readonly string[]): Promise<void> => {
  const [first, second, ...rest] = words
  if (first === 'internvl') return parse(program(), words.slice(1))
  if (first === 'npx' && second === 'internvl') return parse(program(), rest)
  if (first === 'node' && second === 'generation/bin.js') return parse(program(), rest)
  if (first === 'npm' && second === 'test') return
  if (first !== 'npm' || second !== 'run') return
  const [name, ...args] = rest
  assert.ok(Object.hasOwn(scripts, name!), `package.json has no script ${name}`)
  const flags = args[0] === '--' ? args.slice(1) : args
  if (name === 'bench')
    return parse(
      benchCommand(async () => {}),
      flags
    )
  if (name === 'internvl') return parse(program(), flags)
  if (name === 'demo:eval' || name === 'demo:train') return parse(program(), [name.replace(':', '-'), ...flags])
}

/** Readers of `json` and `jsonl` blocks by the kind in the fence. */
const readers: Readonly<Record<string, (file: string) => Promise<unknown>>> = {
  rows: (file) => orThrow(readDataset(file)),
  mixture: (file) => orThrow(readMixture(file)),
  settings: (file) => orThrow(readTrainConfig(file))
}

describe('documentation', () => {
  let folder: string
  before(() => {
    folder = mkdtempSync(join(tmpdir(), 'docs '))
  })
  after(() => rmSync(folder, { recursive: true, force: true }))

  it('states a reason for every block that is not run', () => {
    for (const { where, info } of blocks) assert.ok(!/^no-run\s*$/.test(info), `${where}: no-run without a reason`)
  })

  it('has examples that type-check', function () {
    this.timeout(180_000)
    const files = writePrograms(programsOf(blocks), folder)
    const options: ts.CompilerOptions = {
      ...{ target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext, moduleResolution: ts.ModuleResolutionKind.NodeNext },
      ...{ strict: true, noEmit: true, skipLibCheck: true, allowImportingTsExtensions: true, resolveJsonModule: true },
      ...{ types: ['node'], typeRoots: [join(root, 'node_modules/@types')], lib: ['lib.es2023.d.ts'] }
    }
    const checked = ts.createProgram([...files], options)
    const problems = files.flatMap((file) => {
      const source = checked.getSourceFile(file)!
      return [...checked.getSyntacticDiagnostics(source), ...checked.getSemanticDiagnostics(source)].map(
        ({ messageText }) => `${file}: ${ts.flattenDiagnosticMessageText(messageText, '\n')}`
      )
    })
    assert.deepEqual(problems, [])
  })

  for (const [i, one] of programsOf(blocks).entries())
    it(`${one.where} runs`, async () => {
      const file = writePrograms(programsOf(blocks), folder)[i]!
      const { log } = console
      const write = process.stdout.write
      console.log = () => {}
      process.stdout.write = (() => true) as typeof write
      try {
        await import(pathToFileURL(file).href)
      } finally {
        console.log = log
        process.stdout.write = write
      }
    })

  for (const { where, text } of blocks.filter(({ language, info }) => language === 'sh' && !info.startsWith('no-run')))
    it(`${where}: commands have valid options`, async () => {
      for (const words of commandsOf(text))
        await checkCommand(words).catch((error: Error) => assert.fail(`${words.join(' ')}: ${error.message}`))
    })

  const isData = ({ language, info }: Block) => ['json', 'jsonl'].includes(language) && Object.hasOwn(readers, info)
  for (const { where, language, info, text } of blocks.filter(isData))
    it(`${where}: the block is valid ${info}`, async () => {
      const file = join(folder, `block.${language}`)
      writeFileSync(file, text)
      await readers[info]!(file)
    })

  it('has data examples of every kind', () =>
    assert.deepEqual([...new Set(blocks.filter(isData).map(({ info }) => info))].sort(), Object.keys(readers).sort()))
})

describe('documentation blocks', () => {
  it('are found with language, info and line, indented ones too', () => {
    const found = blocksOf('p.md', 'a\n```ts\nx\n```\n- b\n  ```sh no-run why\n  y\n  ```\n')
    assert.deepEqual(found, [
      { where: 'p.md:2', language: 'ts', info: '', text: 'x' },
      { where: 'p.md:6', language: 'sh', info: 'no-run why', text: 'y' }
    ])
  })

  it('join continued blocks into one program', () => {
    const found = programsOf(blocksOf('p.md', '```ts\nconst a = 1\n```\n```ts continue\na\n```\n```ts\nb\n```\n'))
    assert.deepEqual(
      found.map(({ text }) => text),
      ['const a = 1\na', 'b']
    )
  })

  it('split command lines into commands', () =>
    assert.deepEqual(commandsOf('A=1 echo "x y" | npx internvl ask --image a.png > out.txt # note\n# only a comment'), [
      ['echo', 'x y'],
      ['npx', 'internvl', 'ask', '--image', 'a.png']
    ]))

  it('reject an unknown option, command and script', async () => {
    for (const words of ['internvl ask --speed', 'npx internvl sing', 'npm run nothing', 'npm run bench -- --tile 3'])
      await assert.rejects(checkCommand(words.split(' ')), Error, words)
  })
})
