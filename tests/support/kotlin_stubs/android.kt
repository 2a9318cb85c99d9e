// Stand-ins for the classes of Android, LiteRT and JUnit that the example uses, so that it can be compiled without them.
package android.content

import android.content.res.AssetManager

abstract class Context {
    abstract val assets: AssetManager
}
