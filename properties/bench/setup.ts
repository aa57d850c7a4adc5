import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { environment } from './python.js'

// The versions that the reference numbers were made with.
const packages = ['torch==2.15.0', 'torchvision==0.29.2', 'transformers==5.23.0', 'pillow']

const run = (command: string, args: readonly string[]): void => {
  process.stderr.write(`$ ${command} ${args.join(' ')}\n`)
  const { status, error } = spawnSync(command, args, { stdio: 'inherit' })
  if (status !== 0) {
    process.stderr.write(`bench:setup: ${command} failed${error ? `: ${error.message}` : ''}\n`)
    process.exit(1)
  }
}

run('python3', ['-m', 'venv', environment])
run(join(environment, 'bin', 'python'), ['-m', 'pip', 'install', '--quiet', ...packages])
