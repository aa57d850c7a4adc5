import { createHash } from 'node:crypto'
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import * as TE from 'fp-ts/lib/TaskEither.js'
import type { SetupOptions } from '../../../lib/engines/install/setup-engine.js'
import type { Plan } from '../../../lib/engines/install/setup-plan.js'

/** Contents of the fake wheels: JSON instead of a zip file, `{ path: text }`. */
const wheels = {
  tensorflow: {
    'tensorflow/libtensorflow_cc.so.2': 'the library',
    'tensorflow/libtensorflow_framework.so.2': 'the framework',
    'tensorflow/include/tensorflow/c/c_api.h': '// the interface',
    'tensorflow/python/unneeded.py': 'pass',
    'tensorflow-9.dist-info/METADATA':
      "Requires-Dist: numpy\nRequires-Dist: nvidia-cublas-cu12 ==12.5.3.2 ; extra == 'and-cuda'\n"
  },
  nvidia: { 'nvidia/cublas/lib/libcublas.so.12': 'cublas', 'nvidia/cublas/include/cublas.h': '// unneeded' }
} as const

const python = `
const fs = require('node:fs'), path = require('node:path')
const args = process.argv.slice(2).filter((arg) => arg !== '-I'), option = (name) => args[args.indexOf(name) + 1]
const wheels = ${JSON.stringify(wheels)}
if (args.includes('--version')) process.exit(process.env.FAKE_PIP === 'none' && args.includes('pip') ? 1 : 0)
if (args[0] === '-m') {
  const names = args.slice(args.indexOf('--dest') + 2)
  fs.appendFileSync(process.env.FAKE_LOG, process.pid + ' ' + names.join(' ') + '\\n')
  if (process.env.FAKE_PIP === 'offline') { console.error('ERROR: no route to the index'); process.exit(1) }
  const kind = names[0].startsWith('nvidia') ? 'nvidia' : 'tensorflow'
  const write = () => fs.writeFileSync(path.join(option('--dest'), kind + '.whl'), JSON.stringify(wheels[kind]) + (process.env.FAKE_PIP === (kind === 'nvidia' ? 'wrong-nvidia' : 'wrong') ? ' ' : ''))
  process.env.FAKE_PIP === 'slow' ? setTimeout(write, 60000) : setTimeout(write, 50)
} else {
  const [, , wheel, target, ...patterns] = args, files = JSON.parse(fs.readFileSync(wheel, 'utf8'))
  if (!target) console.log(Object.entries(files).find(([name]) => name.endsWith('METADATA'))[1])
  for (const [name, text] of Object.entries(files))
    if (patterns.some((p) => new RegExp('^' + p.replaceAll('.', '\\\\.').replaceAll('*', '.*') + '$').test(name))) {
      fs.mkdirSync(path.dirname(path.join(target, name)), { recursive: true })
      fs.writeFileSync(path.join(target, name), text)
      console.log(text.length, text.length)
    }
}`

const compiler = `
const fs = require('node:fs'), args = process.argv.slice(2)
if (process.env.FAKE_COMPILER === 'broken' && !args.includes('--version')) { console.error('x.cc:1:1: error: no C++17'); process.exit(1) }
if (!args.includes('--version')) fs.writeFileSync(args[args.indexOf('-o') + 1], 'the addon')`

/** Behaviour of the fake programs; `none` omits the program. */
export interface Fakes {
  readonly pip?: 'ok' | 'offline' | 'wrong' | 'wrong-nvidia' | 'slow' | 'none'
  readonly compiler?: 'ok' | 'broken' | 'none'
}

/** A temporary folder with an empty cache, and a PATH with only a fake `python3` and a fake `g++`. */
export class Workbench {
  readonly engines: string
  private readonly log: string

  constructor(readonly root = mkdtempSync(join(tmpdir(), 'internvl-setup-'))) {
    this.engines = join(root, 'cache', 'engines')
    this.log = join(root, 'pip.log')
  }

  env({ pip = 'ok', compiler: cxx = 'ok' }: Fakes = {}): NodeJS.ProcessEnv {
    const bin = join(this.root, `bin-${pip}-${cxx}`)
    mkdirSync(bin, { recursive: true })
    const program = (name: string, body: string): void => {
      writeFileSync(join(bin, name), `#!${process.execPath}\n${body}\n`)
      chmodSync(join(bin, name), 0o755)
    }
    program('python3', python)
    if (cxx !== 'none') program('g++', compiler)
    return { PATH: bin, INTERNVL_CACHE: join(this.root, 'cache'), FAKE_LOG: this.log, FAKE_PIP: pip, FAKE_COMPILER: cxx }
  }

  /** A plan with the hashes of the fake wheels. */
  plan(variant: Plan['variant'] = 'cpu'): Plan {
    const hashOf = (wheel: object): string => createHash('sha256').update(JSON.stringify(wheel)).digest('hex')
    return {
      folder: `tensorflow-9-${variant}-test`,
      variant,
      platform: 'linux-x64',
      wheel: { name: 'tensorflow', version: '9', tag: 'test', sha256: hashOf(wheels.tensorflow), bytes: 1000 },
      libraries: ['libtensorflow_framework.so.2', 'libtensorflow_cc.so.2'],
      nvidiaWheels: { 'nvidia-cublas-cu12==12.5.3.2': hashOf(wheels.nvidia) },
      nvidiaBytes: 0,
      nvidiaTags: ['test']
    }
  }

  /** Options of a set-up in this folder; the check of the fake addon succeeds. */
  options(fakes: Fakes = {}, variant: Plan['variant'] = 'cpu'): SetupOptions {
    return { env: this.env(fakes), plan: this.plan(variant), checkAddon: () => TE.right('9') }
  }

  /** All downloads so far: process id of pip and requirements. */
  downloads(): ReadonlyArray<{ readonly pid: number; readonly names: string }> {
    if (!existsSync(this.log)) return []
    const lines = readFileSync(this.log, 'utf8').trim().split('\n')
    return lines.map((line) => ({ pid: Number.parseInt(line, 10), names: line.slice(line.indexOf(' ') + 1) }))
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true })
  }
}
