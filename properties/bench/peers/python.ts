import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../..', import.meta.url))

/** The Python environment that `npm run bench:setup` creates; git ignores the folder. */
export const environment: string = join(root, '.venv')

/** Files of the benchmarks (packages of other programs, converted files, histories); git ignores the folder. */
export const workshop: string = join(root, '.bench')

const interpreter = join(environment, 'bin', 'python')

/** The interpreter for comparisons: `BENCH_PYTHON`, else that of the environment. Throws a `RangeError` if it does not exist. */
export const python = (): string => {
  const chosen = process.env.BENCH_PYTHON ?? interpreter
  if (!existsSync(chosen)) throw new RangeError(`${chosen}: no such file; run \`npm run bench:setup\` to create the environment`)
  return chosen
}

/** An interpreter, with the package `name` installed. Throws a `RangeError` with the install command if the package is missing. */
export const pythonWith = (name: string, how: string, chosen: string = python()): string => {
  if (spawnSync(chosen, ['-c', `import ${name}`]).status !== 0)
    throw new RangeError(`${chosen}: the package ${name} is not installed; ${how}`)
  return chosen
}

/** The interpreter, with PEFT installed. */
export const peftPython = (): string => pythonWith('peft', '`npm run bench:setup` installs it')
