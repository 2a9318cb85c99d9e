package android.content.res

import java.io.Closeable
import java.io.FileDescriptor
import java.io.InputStream

abstract class AssetManager {
    abstract fun openFd(name: String): AssetFileDescriptor
    abstract fun open(name: String): InputStream
}

abstract class AssetFileDescriptor : Closeable {
    abstract val fileDescriptor: FileDescriptor
    abstract val startOffset: Long
    abstract val declaredLength: Long
}
