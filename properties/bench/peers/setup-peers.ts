import { spawnSync } from 'node:child_process'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Command } from 'commander'
import { openvinoEnvironment } from './openvino.js'
import { environment, workshop } from './python.js'

// Versions with which the reference values were computed.
const packages = ['torch==2.15.0', 'torchvision==0.29.2', 'transformers==5.24.0', 'peft==0.21.2', 'pillow']
const gguf = 'gguf==0.19.0'
// All versions are pinned: pip searches for a set that fits for more than ten minutes otherwise.
const openvinoPackages = ['openvino==2026.4.1', 'nncf==3.4.0', 'optimum-intel==2.2.0', 'transformers==5.5.4', 'torch==2.15.0']
const nodeLlamaCpp = 'node-llama-cpp@3.22.1'

const run = (command: string, args: readonly string[]): void => {
  process.stderr.write(`$ ${command} ${args.join(' ')}\n`)
  const { status, error } = spawnSync(command, args, { stdio: ['inherit', 2, 'inherit'] })
  if (status !== 0) {
    process.stderr.write(`bench:setup: ${command} failed${error ? `: ${error.message}` : ''}\n`)
    process.exit(1)
  }
}

/** Package with llama.cpp for this machine's CPU; the GPU packages are half a gigabyte larger. */
const prebuilt = ({ platform, arch } = process): string => {
  if (platform === 'darwin') return arch === 'arm64' ? 'mac-arm64-metal' : 'mac-x64'
  return `${platform === 'win32' ? 'win' : platform}-${arch === 'arm' ? 'armv7l' : arch}`
}

const setUpOpenVino = (): void => {
  run('python3', ['-m', 'venv', openvinoEnvironment])
  run(join(openvinoEnvironment, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', ...openvinoPackages])
}

const setup = ({ llamacpp, openvino }: { readonly llamacpp?: true; readonly openvino?: true }): void => {
  run('python3', ['-m', 'venv', environment])
  run(join(environment, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', ...packages, ...(llamacpp ? [gguf] : [])])
  if (openvino) setUpOpenVino()
  if (!llamacpp) return
  mkdirSync(workshop, { recursive: true })
  writeFileSync(join(workshop, 'package.json'), '{ "private": true }\n') // without this file npm would install into the project
  const version = nodeLlamaCpp.split('@')[1]
  run('npm', [
    ...['install', '--prefix', workshop, '--ignore-scripts', '--omit=optional', '--no-audit', '--no-fund'],
    ...[nodeLlamaCpp, `@node-llama-cpp/${prebuilt()}@${version}`]
  ])
}

new Command('bench:setup')
  .description('create the Python environment for `npm run bench -- --compare` in .venv, with Transformers and PEFT')
  .option('--llamacpp', 'also install the packages for --llamacpp: gguf in .venv, node-llama-cpp in .bench')
  .option('--openvino', 'also install OpenVINO and its converters for --openvino, in .bench')
  .action(setup)
  .parse()
