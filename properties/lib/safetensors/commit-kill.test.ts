import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { demoModel, load } from '../../../generation/checkpoint/load.js'
import { convert } from '../../../generation/checkpoint/save.js'
import { folderIdentity } from '../../../generation/evaluate/folder-identity.js'
import { random } from '../../../lib/random.js'
import { inFolder } from '../../models/folders.js'

const childFile = fileURLToPath(new URL('commit-child.ts', import.meta.url))
const kills = Number(process.env.INTERNVL_KILLS ?? 3)

describe('a folder that is written over, killed with kill -9 at random moments', function () {
  this.timeout(180_000)
  for (const how of ['convert', 'save'] as const)
    it(`${how}: the folder is the whole old or the whole new model, and the next write removes what is left`, () =>
      inFolder(async (folder) => {
        const rng = random(kills, how.length)
        for (let kill = 0; kill < kills; kill++) {
          const target = join(folder, `target${kill}`)
          const references = join(folder, 'whole')
          const child = fork(childFile, [how, target, ...(kill === 0 ? [references] : [])], {
            execArgv: ['--import', 'tsx'],
            stdio: 'ignore'
          })
          const ended = once(child, 'exit')
          const first = await Promise.race([once(child, 'message').then(() => 'ready'), ended.then(() => 'ended')])
          assert.equal(first, 'ready')
          await setTimeout(rng.integer(0, 400))
          child.kill('SIGKILL')
          const [, signal] = await ended
          assert.equal(signal, 'SIGKILL')
          ;(await load(target)).dispose()
          const whole = [await folderIdentity(`${references}0`), await folderIdentity(`${references}1`)]
          assert.ok(whole.includes(await folderIdentity(target)), `kill ${kill}: ${(await readdir(target)).join(', ')}`)
          await convert(demoModel, target, { layout: 'hf', force: true })
          assert.deepEqual((await readdir(target)).filter((name) => name.startsWith('.')), []) // biome-ignore format: one line
        }
      }))
})
